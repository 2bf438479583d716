"""What is told of a run as it goes on: its metrics, its clients' episodes, and its last draws."""

import asyncio
import json
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from fettle.broker import Promise
from fettle.engine.base import SampleRequest
from fettle.errors import StorageError
from fettle.service.clock import Clock
from fettle.service.later import Later
from fettle.tracking.atomic import unwritable
from fettle.tracking.lines import opened, read_lines, write
from fettle.types import Completion, ForwardResult, OptimResult

FOLDER = "runs"
"""In the state folder."""
METRICS, EPISODES = "metrics.jsonl", "episodes.jsonl"
DRAWS_KEPT = 64
"""Of each run, in memory."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """A draw of a run, as it was; its tokens are read only by whoever wants their text."""

    at: datetime
    requests: Sequence[SampleRequest]
    completions: Sequence[Completion]
    """Request after request."""


@dataclass(slots=True)
class _Step:
    """What has come together for the next step of a run."""

    losses: list[ForwardResult] = field(default_factory=list)
    seconds: float = 0.0


class Told:
    """The series of every run, in files that grow by a line; nobody waits for them to be written."""

    def __init__(self, state: Path, later: Later, clock: Clock) -> None:
        self._root = state / FOLDER
        self._later = later
        self._clock = clock
        self._steps: dict[str, _Step] = defaultdict(_Step)
        self._newest: dict[str, int] = {}
        """Of each run whose file was read: the last step in it."""
        self._whole: set[Path] = set()
        """Files that this process has written to, and whose last line is whole."""
        self._draws: dict[str, deque[Drawn]] = {}
        self._thread = ThreadPoolExecutor(1, "fettle-told")

    def worked(self, run_id: str, promise: Promise) -> None:
        """Note what an operation of a run came to."""
        answer = promise.answer
        step = self._steps[run_id]
        step.seconds += promise.seconds
        if promise.kind == "forward_backward" and isinstance(answer, ForwardResult):
            step.losses.append(answer)
        elif isinstance(answer, OptimResult):
            del self._steps[run_id]
            row = {"step": answer.policy_version, "at": self._clock().isoformat(), **_of_step(step, answer)}
            self._later.post(partial(self._append, run_id, METRICS, [row]))

    async def add_metrics(self, run_id: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Rows of a client's own, each with its ``step``."""
        await self._append(run_id, METRICS, rows, own=True)

    async def add_episodes(self, run_id: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Episodes that a client tells of, each with its ``step``."""
        await self._append(run_id, EPISODES, rows, own=True)

    async def metrics(self, run_id: str, *, after: int = -1) -> list[dict[str, Any]]:
        """The rows of the steps after one, oldest first."""
        return [row for row in await self._read(run_id, METRICS) if row["step"] > after]

    async def episodes(self, run_id: str, *, after: int = -1) -> list[dict[str, Any]]:
        """The episodes of the steps after one, oldest first."""
        return [row for row in await self._read(run_id, EPISODES) if row["step"] > after]

    def drew(self, run_id: str, requests: Sequence[SampleRequest], promise: Promise) -> None:
        """Keep a draw for whoever looks."""
        if isinstance(promise.answer, list):
            drawn = Drawn(self._clock(), requests, promise.answer)
            self._draws.setdefault(run_id, deque(maxlen=DRAWS_KEPT)).append(drawn)

    def draws(self, run_id: str) -> list[Drawn]:
        """The last draws of a run, newest first."""
        return list(reversed(self._draws.get(run_id, ())))

    def close(self) -> None:
        """Finish what is being written."""
        self._thread.shutdown(wait=True)

    async def _append(self, run_id: str, name: str, rows: Iterable[Mapping[str, Any]], *, own: bool = False) -> None:
        work = partial(self._write, run_id, name, list(rows), own=own)
        await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def _read(self, run_id: str, name: str) -> list[dict[str, Any]]:
        path = self._root / run_id / name
        return await asyncio.get_running_loop().run_in_executor(self._thread, read_lines, path)

    def _write(self, run_id: str, name: str, rows: list[Mapping[str, Any]], *, own: bool) -> None:
        path = self._root / run_id / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not own:  # a step that is carried out again after a crash is told once
                rows = [row for row in rows if row["step"] > self._last_step(run_id, path)]
            with opened(path) if path not in self._whole else path.open("ab", buffering=0) as file:
                self._whole.discard(path)
                write(file, b"".join(json.dumps(row, separators=(",", ":")).encode() + b"\n" for row in rows))
                self._whole.add(path)
        except OSError as error:
            raise StorageError(unwritable(path, error)) from error
        if rows and not own:
            self._newest[run_id] = rows[-1]["step"]

    def _last_step(self, run_id: str, path: Path) -> int:
        if run_id not in self._newest:
            own = [row["step"] for row in read_lines(path) if "policy/grad_norm" in row]
            self._newest[run_id] = max(own, default=-1)
        return self._newest[run_id]


def _of_step(step: _Step, result: OptimResult) -> dict[str, float]:
    """The metrics of a step: losses are summed, since they are sums; what is told a token is weighted by tokens."""
    row: dict[str, float] = {}
    if step.losses:
        tokens = sum(each.num_tokens for each in step.losses)
        row = {"loss": sum(each.loss for each in step.losses), "tokens/trained": tokens}
        for name in dict.fromkeys(name for each in step.losses for name in each.metrics):
            row[f"loss/{name}"] = _joint(name, [each for each in step.losses if name in each.metrics])
    row |= {"policy/grad_norm": result.grad_norm, "policy/skipped": float(result.skipped)}
    return {name: value for name, value in {**row, "time/step": step.seconds}.items() if value == value}


def _joint(name: str, results: Sequence[ForwardResult]) -> float:
    values = [each.metrics[name] for each in results]
    if name.endswith("_max"):
        return max(values)
    if name.endswith("_min"):
        return min(values)
    weights = [max(each.num_tokens, 1) for each in results]
    return sum(value * weight for value, weight in zip(values, weights, strict=True)) / sum(weights)
