"""What is told of a run as it goes on: its metrics, its clients' episodes, and its last draws."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from fettle.broker import Promise
from fettle.engine.base import SampleRequest
from fettle.service.clock import Clock
from fettle.service.later import Later
from fettle.service.recent import Drawn, Recent
from fettle.service.series import Series
from fettle.types import ForwardResult, OptimResult

Result = TypeVar("Result")

FOLDER = "runs"
"""In the state folder."""
METRICS, EPISODES = "metrics.jsonl", "episodes.jsonl"
MOST_BYTES = 64 << 20
"""Of each of a run's files that clients add to: what they add beyond is refused."""
PAGE_BYTES = 4 << 20
"""Of a file, from which on an answer ends, and says that there is more."""
THREADS = 4
"""That read and write files; of each file one at a time."""


@dataclass(slots=True)
class _Step:
    """What has come together for the next step of a run: figures alone, however many calls they come from."""

    calls: int = 0
    loss: float = 0.0
    tokens: int = 0
    metrics: dict[str, tuple[float, int]] = field(default_factory=dict)
    """Each with its weight."""
    seconds: float = 0.0
    """Of computing: its operations, and what was drawn from the run since the step before."""

    def add(self, result: ForwardResult) -> None:
        """Losses are summed, since they are sums; what is told a token is weighted by tokens."""
        self.calls += 1
        self.loss += result.loss
        self.tokens += result.num_tokens
        for name, value in result.metrics.items():
            weighted = value, max(result.num_tokens, 1)
            before = self.metrics.get(name)
            self.metrics[name] = weighted if before is None else _joint(name, before, weighted)


class Told:
    """The series of every run, in files that grow by a line; nobody waits for them to be written."""

    def __init__(self, state: Path, later: Later, clock: Clock) -> None:
        self._root = state / FOLDER
        self._later = later
        self._clock = clock
        self._steps: dict[str, _Step] = defaultdict(_Step)
        self._series: dict[tuple[str, str], Series] = {}
        """By run and file."""
        self._draws = Recent()
        self._threads = ThreadPoolExecutor(THREADS, "fettle-told")

    def worked(self, run_id: str, promise: Promise) -> None:
        """Note what an operation of a run came to."""
        answer = promise.answer
        step = self._steps[run_id]
        step.seconds += promise.seconds
        if promise.kind == "forward_backward" and isinstance(answer, ForwardResult):
            step.add(answer)
        elif isinstance(answer, OptimResult):
            del self._steps[run_id]
            row = {"step": answer.policy_version, "at": self._clock().isoformat(), **_of_step(step, answer)}
            self._later.post(partial(self._with, run_id, METRICS, partial(Series.add_step, row=row)))

    async def add_metrics(self, run_id: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Rows of a client's own, each with its ``step``."""
        await self._with(run_id, METRICS, partial(Series.add, rows=rows))

    async def add_episodes(self, run_id: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Episodes that a client tells of, each with its ``step``."""
        await self._with(run_id, EPISODES, partial(Series.add, rows=rows))

    async def metrics(self, run_id: str, *, after: int = -1) -> list[dict[str, Any]]:
        """The rows of the steps after one, oldest first."""
        return await self._with(run_id, METRICS, partial(Series.after, step=after))

    async def episodes(self, run_id: str, *, after: int = -1) -> list[dict[str, Any]]:
        """The episodes of the steps after one, oldest first."""
        return await self._with(run_id, EPISODES, partial(Series.after, step=after))

    async def page(
        self, run_id: str, name: str, *, after: int, skip: int, most: int
    ) -> tuple[list[dict[str, Any]], bool]:
        """A part of the same, and whether there is more of it."""
        part = partial(Series.page, step=after, skip=skip, most=most, most_bytes=PAGE_BYTES)
        return await self._with(run_id, name, part)

    def drew(self, run_id: str, requests: Sequence[SampleRequest], promise: Promise) -> None:
        """Count a draw for the step that comes next, and keep it for whoever looks."""
        self._steps[run_id].seconds += promise.seconds
        if isinstance(promise.answer, list):
            self._draws.add(run_id, Drawn(self._clock(), requests, promise.answer))

    def draws(self, run_id: str) -> list[Drawn]:
        """The last draws of a run, newest first."""
        return self._draws.of(run_id)

    def forget(self, run_id: str) -> None:
        """Let go of what is in memory of a run that is over; what was written can still be read."""
        self._steps.pop(run_id, None)
        self._draws.forget(run_id)
        for name in (METRICS, EPISODES):
            if (series := self._series.get((run_id, name))) is not None:
                series.forget()

    def close(self) -> None:
        """Finish what is being written."""
        self._threads.shutdown(wait=True)

    async def _with(self, run_id: str, name: str, work: Callable[[Series], Result]) -> Result:
        """Read or write a file off the event loop; however much of it waits, it holds one thread."""
        series = self._series.get((run_id, name))
        if series is None:
            path = self._root / run_id / name
            series = self._series[run_id, name] = Series(path, most_bytes=MOST_BYTES)
        async with series.turn:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work, series)


def _of_step(step: _Step, result: OptimResult) -> dict[str, float]:
    row: dict[str, float] = {}
    if step.calls:
        row = {"loss": step.loss, "tokens/trained": step.tokens}
        row |= {f"loss/{name}": value for name, (value, _) in step.metrics.items()}
    row |= {"policy/grad_norm": result.grad_norm, "policy/skipped": float(result.skipped)}
    return {name: value for name, value in {**row, "time/step": step.seconds}.items() if value == value}


def _joint(name: str, one: tuple[float, int], other: tuple[float, int]) -> tuple[float, int]:
    weight = one[1] + other[1]
    if name.endswith("_max"):
        return max(one[0], other[0]), weight
    if name.endswith("_min"):
        return min(one[0], other[0]), weight
    return (one[0] * one[1] + other[0] * other[1]) / weight, weight
