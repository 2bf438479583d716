"""Packages that are installed for as long as a test needs them: a module, and what tells Python of it."""

import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

LETTERS = """
import verifiers.v1 as vf


class Data(vf.TaskData):
    answer: int


class Task(vf.Task[Data]):
    @vf.reward(weight=0.75)
    async def right(self, trace):
        return float(trace.last_reply == str(self.data.answer))

    @vf.reward(weight=0.25)
    async def brief(self, trace):
        return float(0 < len(trace.last_reply) < 4 and trace.last_reply.isdigit())

    @vf.metric
    async def characters(self, trace):
        return float(len(trace.last_reply))


class Config(vf.TasksetConfig):
    size: int = 100


class Letters(vf.Taskset[Task, Config]):
    def load(self):
        for n in range(self.config.size):
            yield Task(Data(prompt=f"How many letters has {'a' * n + 'b'}?", answer=n + 1), self.config.task)


__all__ = ["Letters"]
"""
"""A taskset of verifiers."""

COUNTING = """
from pydantic import BaseModel

from fettle.environments.generated import GeneratedSuite, prompt
from fettle.rewards import in_tags
from fettle.types import Task


class Settings(BaseModel):
    most: int = 1000


def suite(settings: Settings, *, seed: int, heldout: int, system: str | None):
    def draw(rng):
        number = rng.randrange(settings.most)
        return Task(prompt(system, f"What comes after {number}?"), {"answer": number + 1}, "counting")

    def right(answer, task):
        return float(answer == str(task.data["answer"]))

    return GeneratedSuite("counting", draw, in_tags(right), component="right", seed=seed, heldout=heldout)
"""
"""An environment of somebody else's."""


@contextmanager
def installed(folder: Path, module: str, source: str, entry_points: Mapping[str, str] | None = None) -> Iterator[Path]:
    """A package of one module, until the end of the block."""
    folder.mkdir(exist_ok=True)
    (folder / f"{module}.py").write_text(source)
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    lines = [f"{name} = {value}" for name, value in (entry_points or {}).items()]
    (info / "entry_points.txt").write_text("\n".join(["[fettle.environments]", *lines, ""]))
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield folder
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop(module, None)
