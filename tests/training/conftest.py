"""A real engine on a tiny model, and a tracker that remembers."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fettle.broker import Broker
from fettle.chat import Template, load_tokenizer
from fettle.config import LocalEngine, RLRun, TinyModel
from fettle.data import Conversation
from fettle.engine.local import LocalBackend, make_tiny_model
from fettle.environments import GameSuite, Suite, suite
from fettle.tracking import HACKING, RunFolder, Transcript
from fettle.training import Session, Summary, rl
from fettle.training.drawing import Drawer
from fettle.training.players import Players

from . import copying

QUESTION = "State the final answer to the following arithmetic problem: 1 + 2 ="


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    return make_tiny_model(TinyModel(hidden=32, layers=1, heads=2), folder, texts=[QUESTION] * 20)


@pytest.fixture(scope="session")
def babbler(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where those start who learn to copy."""
    return asyncio.run(copying.babbler(tmp_path_factory.mktemp("models") / "babbler"))


@dataclass
class Memory:
    """Satisfies ``Tracker``."""

    rows: list[dict[str, float]] = field(default_factory=list)
    pages: dict[int, Sequence[Transcript]] = field(default_factory=dict)

    def log(self, step: int, row: Mapping[str, float]) -> None:
        self.rows.append({"step": step, **row})

    def transcripts(self, step: int, pages: Sequence[Transcript]) -> None:
        self.pages[step] = pages

    def close(self) -> None:
        pass

    def column(self, name: str) -> list[float]:
        return [row[name] for row in self.rows if name in row]


@dataclass
class Trained:
    summary: Summary
    memory: Memory
    folder: RunFolder


async def trained(
    run: RLRun,
    folder: Path,
    suites: Sequence[Suite | GameSuite] | None = None,
    rehearsed: Sequence[Conversation] = (),
    engine: Broker | None = None,
) -> Trained:
    """Run the reinforcement loop for real."""
    memory, place = Memory(), RunFolder.at(folder)
    engine = engine or Broker(LocalBackend(LocalEngine(threads=1), checkpoints=place.checkpoints))
    session = Session(place, memory, checkpoints=run.checkpoints, steps=run.steps, stop=asyncio.Event())
    stops = run.reward_model is not None and run.reward_model.monitor.stop
    evaluation, alarm = run.evaluation, HACKING if stops else None
    session.stop_when(patience=evaluation.patience, target=evaluation.target, alarm=alarm)
    template = Template(load_tokenizer(str(run.policy.model)))
    made = suites or [suite(environment) for environment in run.environments]
    try:
        summary = await rl.train(
            run, engine=engine, suites=made, template=template, session=session, rehearsed=rehearsed
        )
    finally:
        engine.close()
    return Trained(summary, memory, place)


def small(model: str, **settings) -> RLRun:
    """A run of seconds."""
    defaults = {
        "policy": {"model": model},
        "environments": [{"type": "arithmetic", "digits": 1, "heldout": 4, "system": None}],
        "steps": 6,
        "groups_per_step": 2,
        "group_size": 3,
        "sampling": {"max_tokens": 6},
        "loss": {"kl": None},
        "evaluation": {"every": 3, "tasks": 4},
        "checkpoints": {"every": 3},
    }
    return RLRun.model_validate({**defaults, **settings})


def drawer_of(run, suites, policy, template) -> Drawer:
    """A drawer outside of a session, for a run of no games: nothing is asked of the engine or the session."""
    players = Players(run, policy, template, engine=None, session=None, templates={})
    return Drawer(run, suites, template, policy, players=players)
