"""Real runs, tiny: their loops, sessions and environments are those of every run."""

import asyncio
import hashlib
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.cluster_faults.struck import Strike, Struck, Told
from fettle.broker import Broker
from fettle.chat import Template, load_tokenizer
from fettle.config import Arithmetic, PreferenceRun, RewardPart, RLRun, SFTRun, TinyModel
from fettle.data import Preference
from fettle.engine.local import make_tiny_model
from fettle.environments import GameSuite, Suite, suite
from fettle.tracking import RunFolder, Transcript
from fettle.training import Session, preference, rl, sft
from fettle.types import Message

PAYING = RewardPart(reward="benchmarks.cluster_faults.paying:variety")
SUMS = Arithmetic(digits=1, heldout=4, system=None, rewards=(PAYING,))
TALK = [(Message("user", f"Paint {n} red"), Message("assistant", f"{n} is red" + " red" * (n % 3))) for n in range(8)]
PAIRS = [Preference((Message("user", f"Paint {n} red"),), f"{n} is red", f"{n} is blue") for n in range(8)]
USUAL: dict[str, Any] = {
    "steps": 4,
    "evaluation": {"every": 2},
    "checkpoints": {"every": 2},
    "optimizer": {"learning_rate": 1e-2, "eps": 1e-5},
}
DRAWN: dict[str, Any] = {
    "environments": [SUMS],
    "groups_per_step": 2,
    "group_size": 3,
    "sampling": {"max_tokens": 6},
    "evaluation": {"every": 2, "tasks": 4},
}
KINDS: Mapping[str, tuple[type[SFTRun | PreferenceRun | RLRun], dict[str, Any]]] = {
    "GRPO, an adapter": (RLRun, {**DRAWN, "preset": "grpo", "policy": {"lora": {"rank": 4}}}),
    "PPO with a critic": (RLRun, {**DRAWN, "preset": "ppo", "minibatches": 2}),
    "SFT": (SFTRun, {"data": {"type": "conversations", "path": "-"}, "batch_size": 5}),
    "DPO": (PreferenceRun, {"data": {"type": "preferences", "path": "-"}, "batch_size": 6, "loss": {"type": "dpo"}}),
}

OF_THE_MACHINE = ("time/", "speed/", "engine/", "samplers/", "sync/", "parity/")
"""Metrics that say how fast it was, and what was lost."""


SUMMED = ("grad_norm", "explained_variance")
"""Metrics in which rounding adds up."""


class Rows:
    """Satisfies ``Tracker``: keeps the rows."""

    def __init__(self) -> None:
        self.kept: list[tuple[int, Mapping[str, float]]] = []

    def log(self, step: int, row: Mapping[str, float]) -> None:
        """Keep it, but for what is of the machine."""
        self.kept.append((step, {k: v for k, v in row.items() if not k.startswith(OF_THE_MACHINE)}))

    def transcripts(self, step: int, pages: Sequence[Transcript]) -> None:
        """Not kept."""

    def close(self) -> None:
        """Nothing is open."""


@dataclass(slots=True)
class Run:
    """What a run came to."""

    rows: list[tuple[int, Mapping[str, float]]]
    weights: str
    """A hash of all files of tensors in its checkpoints."""
    told: list[Told]
    seconds: float
    during: list[str] = field(default_factory=list)
    recovered: list[float] = field(default_factory=list)


def model(folder: Path) -> str:
    """A tiny one that can say what the runs ask for."""
    texts = [message.content for talk in TALK for message in talk] + ["State the final answer 1 + 2 = is blue"] * 9
    return make_tiny_model(TinyModel(hidden=32, layers=2, heads=2, context=128), folder, texts=texts)


def settings(kind: str, name: str, **more: Any) -> SFTRun | PreferenceRun | RLRun:
    """The run of that kind with the model of that name."""
    of, own = KINDS[kind]
    return of.model_validate({**USUAL, **own, "policy": {"model": name, **own.get("policy", {})}, **more})


def made(
    backend: Any,
    run: SFTRun | PreferenceRun | RLRun,
    folder: Path,
    *,
    strikes: Mapping[int, Strike] | None = None,
    suites: Sequence[Suite | GameSuite] | None = None,
) -> Run:
    """Carry the run out, with ``strikes`` at operations by number; the backend's checkpoints are beside ``folder``."""
    struck, rows = Struck(backend, strikes), Rows()
    started = time.perf_counter()
    asyncio.run(_carried_out(struck, run, folder, rows, suites))
    struck.settle()
    seconds = time.perf_counter() - started
    return Run(rows.kept, hashed(folder.parent / "checkpoints"), struck.told, seconds, struck.during, struck.recovered)


async def _carried_out(
    struck: Struck,
    run: SFTRun | PreferenceRun | RLRun,
    folder: Path,
    rows: Rows,
    suites: Sequence[Suite | GameSuite] | None,
) -> None:
    broker: Any = Broker(struck)
    place = RunFolder.at(folder)
    session = Session(place, rows, checkpoints=run.checkpoints, steps=run.steps, stop=asyncio.Event())
    given = {"engine": broker, "session": session, "template": Template(load_tokenizer(str(run.policy.model)))}
    try:
        if isinstance(run, SFTRun):
            await sft.train(run, conversations=TALK, heldout=TALK, **given)
        elif isinstance(run, PreferenceRun):
            await preference.train(run, examples=PAIRS, heldout=PAIRS, **given)
        else:
            await rl.train(run, suites=suites or [suite(each) for each in run.environments], **given)
    finally:
        broker.close()


def hashed(checkpoints: Path) -> str:
    """Of all tensors in checkpoints."""
    found = hashlib.sha256()
    for path in sorted(checkpoints.glob("[!.]*/*.safetensors")):
        found.update(f"{path.parent.name}/{path.name}".encode() + path.read_bytes())
    return found.hexdigest()[:16]


def compared(found: Run, expected: Run, *, bits: bool = True) -> dict[str, Any]:
    """How a run differs from the same without kills; without ``bits``, only in what is more than rounding."""
    done, due = [each.name for each in found.told], [each.name for each in expected.told]
    counts = {name: done.count(name) - due.count(name) for name in {*done, *due}}
    answers = sum(one.came_to != other.came_to for one, other in zip(found.told, expected.told, strict=False))
    rows = sum(repr(a) != repr(b) for a, b in zip(found.rows, expected.rows, strict=False))
    exact = {
        "answers_that_differ": answers,
        "rows_that_differ": rows + abs(len(found.rows) - len(expected.rows)),
        "weights_differ": int(found.weights != expected.weights),
    }
    return {
        "operations": len(due),
        "lost": sum(-count for count in counts.values() if count < 0),
        "doubled": sum(count for count in counts.values() if count > 0),
        **(exact if bits else {}),
        "largest_difference": _apart(found, expected),
    }


def _apart(found: Run, expected: Run) -> float:
    """The largest relative difference of a metric, but for those that add up rounding; 0 where the bits agree."""
    most = 0.0
    for (_, row), (_, other) in zip(found.rows, expected.rows, strict=False):
        for name in [name for name in row.keys() & other.keys() if not name.endswith(SUMMED)]:
            a, b = row[name], other[name]
            if not (a == b or (math.isnan(a) and math.isnan(b))):
                most = max(most, abs(a - b) / max(abs(a), abs(b), 1.0))
    return most
