"""Asynchronous reinforcement learning with slow environments: ``python -m benchmarks.asynchronous``.

One recipe, whose environments answer after ``--seconds`` in the mean, each after a time of its own: strictly on-policy,
then drawing ahead, with replies finished by the weights that began them, and kept across updates. Prints JSON: seconds
a step over the whole run, and how many times as fast each is as the synchronous one. The model is tiny, so nearly all
that a step waits for is its environments; that is the case which drawing ahead is for.
"""

import argparse
import asyncio
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.machine import described, load
from fettle.broker import Broker
from fettle.chat import Template, load_tokenizer
from fettle.config import Arithmetic, LocalEngine, RLRun, TinyModel
from fettle.engine.local import LocalBackend, make_tiny_model
from fettle.environments import Environment, Observation, StepResult, Suite, suite
from fettle.tracking import RunFolder, Transcript
from fettle.training import Session, rl
from fettle.types import Message, Task

SIDES: Mapping[str, Mapping[str, Any]] = {
    "synchronous": {"max_staleness": 0},
    "ahead by 1": {"max_staleness": 1},
    "ahead by 2": {"max_staleness": 2},
    "ahead by 2, kept across updates": {"max_staleness": 2, "in_flight": {"type": "keep", "tokens": 8}},
}
SUMS = Arithmetic(digits=1, heldout=4, system=None)


class SlowSuite:
    """Satisfies ``Suite``: another one, whose environments answer late."""

    def __init__(self, inner: Suite, seconds: float) -> None:
        self.name, self.training_task, self.heldout_tasks = inner.name, inner.training_task, inner.heldout_tasks
        self._inner, self._seconds, self._numbers = inner, seconds, itertools.count()

    def environment(self) -> Environment:
        """Half of the others' mean at the least, and as much on top as an exponential draw gives."""
        wait = self._seconds / 2 * (1 + Random(f"wait/{next(self._numbers)}").expovariate(1))
        return SlowEnvironment(self._inner.environment(), wait)


class SlowEnvironment:
    """Satisfies ``Environment``."""

    def __init__(self, inner: Environment, wait: float) -> None:
        self._inner, self._wait = inner, wait

    async def reset(self, task: Task) -> Observation:
        """At once."""
        return await self._inner.reset(task)

    async def step(self, action: Message) -> StepResult:
        """After a while."""
        await asyncio.sleep(self._wait)
        return await self._inner.step(action)

    async def close(self) -> None:
        """At once."""
        await self._inner.close()


class Rows:
    """Satisfies ``Tracker``: keeps the rows of steps."""

    def __init__(self) -> None:
        self.kept: list[Mapping[str, float]] = []

    def log(self, step: int, row: Mapping[str, float]) -> None:
        """Keep it, if it is a step's."""
        if "policy/lag" in row:
            self.kept.append(row)

    def transcripts(self, step: int, pages: Sequence[Transcript]) -> None:
        """Not kept."""

    def close(self) -> None:
        """Nothing is open."""


async def measured(model: str, side: Mapping[str, Any], *, steps: int, seconds: float, folder: Path) -> dict[str, Any]:
    """One run."""
    run = RLRun.model_validate(
        {
            "policy": {"model": model},
            "environments": [SUMS],
            "steps": steps,
            "groups_per_step": 4,
            "group_size": 4,
            "sampling": {"max_tokens": 24},
            "evaluation": {"every": steps, "tasks": 1},
            "checkpoints": {"every": steps},
            **side,
        }
    )
    rows, place = Rows(), RunFolder.at(folder)
    engine = Broker(LocalBackend(LocalEngine(threads=1), checkpoints=place.checkpoints))
    session = Session(place, rows, checkpoints=run.checkpoints, steps=steps, stop=asyncio.Event())
    started = time.perf_counter()
    try:
        await rl.train(
            run,
            engine=engine,
            suites=[SlowSuite(suite(SUMS), seconds)],
            template=Template(load_tokenizer(model)),
            session=session,
        )
    finally:
        engine.close()
    taken = time.perf_counter() - started
    across = [row["rollout/across_updates"] for row in rows.kept if "rollout/across_updates" in row]
    return {
        "seconds_per_step": round(taken / steps, 3),
        "largest_lag": max(row["policy/lag"] for row in rows.kept),
        "mean_lag": round(statistics.fmean(row["policy/lag_mean"] for row in rows.kept), 2),
        **({"replies_across_updates": round(statistics.fmean(across), 3)} if across else {}),
    }


def main() -> None:
    """Measure each side once, and print what was found."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.asynchronous", description=__doc__)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--seconds", type=float, default=1.0, help="what an environment takes in the mean")
    asked = parser.parse_args()
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        texts = [message.content for index in range(40) for message in suite(SUMS).training_task(index).prompt]
        model = make_tiny_model(TinyModel(hidden=64, layers=2, heads=2), Path(scratch) / "model", texts=texts)
        for number, (name, side) in enumerate(SIDES.items()):
            folder = Path(scratch) / f"run-{number}"
            going = measured(model, side, steps=asked.steps, seconds=asked.seconds, folder=folder)
            found[name] = asyncio.run(going)
    base = found["synchronous"]["seconds_per_step"]
    for each in found.values():
        each["times_as_fast"] = round(base / each["seconds_per_step"], 2)
    told = {"steps": asked.steps, "environment_seconds": asked.seconds, "sides": found}
    print(json.dumps({**told, "load_after": load(), "machine": described()}, indent=1))


if __name__ == "__main__":
    main()
