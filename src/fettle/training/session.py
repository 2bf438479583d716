"""What every loop shares: where it stands, when it saves, what it keeps, and when it is time to stop."""

import asyncio
import logging
import math
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pydantic import ConfigDict, ValidationError

from fettle.config import Checkpoints, Frozen, PolicySpec
from fettle.engine import Engine, Policy
from fettle.errors import CheckpointError, FettleError
from fettle.tracking import (
    Phase,
    RunFolder,
    Tracker,
    Transcript,
    record_failures,
    write_atomically,
    write_transcripts,
)
from fettle.training.callbacks import Callback
from fettle.types import Failed

logger = logging.getLogger(__name__)

SEEN_THROUGH_S = 60.0
"""Seconds for which a run that has failed waits for what it had saved before."""


class Progress(Frozen):
    """Where a run stands, as of its newest checkpoint. The file that holds it is the run's pointer to "latest"."""

    # A diverged run measures what is no number, and must still be gone on with.
    model_config = ConfigDict(allow_inf_nan=True, ser_json_inf_nan="constants")

    step: int = 0
    """Steps done."""
    checkpoint: str | None = None
    """Name of the newest checkpoint."""
    best: float | None = None
    """Best held-out score so far."""
    best_checkpoint: str | None = None
    """Name of the checkpoint that earned it."""
    without_better: int = 0
    """Evaluations since then."""
    kept: tuple[str, ...] = ()
    """Names of the checkpoints kept for their newness, oldest first."""
    tokens: int = 0
    """Tokens drawn and trained on."""
    seconds: float = 0.0
    """Time spent training, over all resumptions."""
    evaluations: tuple[Mapping[str, float], ...] = ()
    """What each evaluation found: the first is before the first step."""
    called_off: bool = False
    """Whether a callback has ended the run."""
    held: tuple[str, ...] = ()
    """Names of weights saved besides, that something still plays from."""
    state: Mapping[str, float] = {}
    """What a loop carries from step to step beside its weights: coefficients that follow what is measured."""


class Part(Protocol):
    """What is saved beside a policy, whenever it is: another policy, or anything else that a run goes on from."""

    async def save(self, name: str) -> object:
        """Write it among the checkpoints, under a name that was never used."""
        ...


@dataclass(frozen=True, slots=True)
class Summary:
    """How a run ended."""

    folder: Path
    steps: int
    tokens: int
    seconds: float
    first: Mapping[str, float]
    """The evaluation before the first step."""
    last: Mapping[str, float]
    """The newest evaluation."""
    best: Mapping[str, float]
    """The evaluation of the best checkpoint."""
    checkpoint: str
    best_checkpoint: str
    interrupted: bool = False


class Session:
    """One run in one folder, fresh or resumed."""

    def __init__(
        self,
        folder: RunFolder,
        tracker: Tracker,
        *,
        checkpoints: Checkpoints,
        steps: int,
        stop: asyncio.Event,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self.folder = folder
        self.steps = steps
        self.progress = self._on_disk = _read_progress(folder)
        self._tracker = tracker
        self._checkpoints = checkpoints
        self._sign = 1.0
        self._patience: int | None = None
        self._target: float | None = None
        self._alarm: str | None = None
        self._stop = stop
        self._callbacks = callbacks
        self._parts: dict[str, Part] = {}
        self._since = time.perf_counter()
        self._under_way: asyncio.Future[Any] | None = None
        """What is being saved, and after it the progress file that names it."""
        for path in folder.checkpoints.glob(".*"):  # what a run that was killed had under way
            shutil.rmtree(path, ignore_errors=True)

    def stop_when(
        self,
        *,
        patience: int | None,
        target: float | None = None,
        lower_is_better: bool = False,
        alarm: str | None = None,
    ) -> None:
        """End early after ``patience`` evaluations without a better score, or once the score reaches ``target``.

        Also after an evaluation in which the metric ``alarm`` is not 0.
        """
        self._patience, self._target, self._alarm = patience, target, alarm
        self._sign = -1.0 if lower_is_better else 1.0

    @staticmethod
    def best_checkpoint(folder: RunFolder) -> str:
        """The path of the checkpoint with the best held-out score, or else of the newest.

        Raises:
            CheckpointError: the run has left none.
        """
        progress = _read_progress(folder)
        name = progress.best_checkpoint or progress.checkpoint
        if name is None:
            raise CheckpointError(
                f"the run in {folder.path} has no checkpoint yet: go on with it by fettle train --resume {folder.path}"
            )
        return str(folder.checkpoints / name)

    async def policy(self, engine: Engine, spec: PolicySpec, *, part: str = "") -> Policy:
        """The policy at the newest checkpoint, or a new one; a ``part`` is another model, saved whenever it is."""
        self._sweep()
        if self.progress.checkpoint is None:
            policy = await engine.create_policy(spec)
        else:
            policy = await engine.load_policy(self._path(_beside(self.progress.checkpoint, part)), optimizer=True)
        if part:
            self._parts[part] = policy
        return policy

    def keep(self, part: str, kept: Part) -> Path | None:
        """Save this whenever the policy is; returns where the newest checkpoint has it, if there is one."""
        self._parts[part] = kept
        newest = self.progress.checkpoint
        return None if newest is None else self.folder.checkpoints / _beside(newest, part)

    @property
    def interrupted(self) -> bool:
        """Whether someone asked to stop."""
        return self._stop.is_set()

    @property
    def remaining(self) -> range:
        """The steps left to do: none after a step that ended the run early, however often it is resumed."""
        done = self.progress.step
        return range(done, done if self._early() else self.steps)

    def barriers(self) -> range:
        """Steps after which a checkpoint is always written."""
        return range(self._checkpoints.every - 1, self.steps, self._checkpoints.every)

    def log(self, step: int, row: Mapping[str, float]) -> None:
        """One row of metrics, and the tokens it speaks of."""
        self._update(tokens=self.progress.tokens + int(row.get("progress/step_tokens", 0)))
        row = {**row, "progress/tokens": self.progress.tokens}
        self._tracker.log(step, row)
        self._heed([callback.after_step(step, row) for callback in self._callbacks])

    def carry(self, state: Mapping[str, float]) -> None:
        """Keep these numbers with the next checkpoint, and with all that follow."""
        self._update(state=dict(state))

    def hold(self, names: Sequence[str]) -> None:
        """Of what was saved beside the checkpoints, keep these from the next checkpoint on, and no others."""
        self._update(held=tuple(names))

    def transcripts(self, step: int, pages: Sequence[Transcript]) -> None:
        """Readable samples."""
        self._tracker.transcripts(step, pages)

    def episodes(self, step: int, transcripts: Sequence[Transcript]) -> None:
        """Every held-out episode of one evaluation, a line each, for later comparison."""
        write_transcripts(self.folder, step, transcripts)

    def failures(self, step: int, phase: Phase, failed: Sequence[Failed]) -> None:
        """Every episode that broke, a line each, with its reason."""
        record_failures(self.folder, step, phase, failed)

    async def evaluated(self, policy: Policy, step: int, score: float, row: Mapping[str, float]) -> None:
        """Take in a held-out score after ``step`` steps; the best one's weights are saved."""
        self._tracker.log(step, row)
        evaluations = (*self.progress.evaluations, row)
        gain = math.inf if self.progress.best is None else self._sign * (score - self.progress.best)
        waited = 0 if gain > 0 else self.progress.without_better + 1
        self._update(without_better=waited, evaluations=evaluations)
        if gain >= 0:  # of equals the newest, which has seen most
            self._update(best=score, best_checkpoint=await self._saved(policy, step))
        self._heed([callback.after_evaluation(step, score, row) for callback in self._callbacks])

    async def finish_step(self, policy: Policy, done: int) -> bool:
        """After ``done`` steps: save where it is due, and say whether to stop.

        What is saved is written while the next steps are made, and is on the disk when the run stops.
        """
        early = self._early()
        over = done == self.steps or early or self.interrupted
        if done % self._checkpoints.every == 0 or over:
            await self._checkpoint(policy, done)
        if over or (self._under_way is not None and self._under_way.done()):
            await self.settled()
        return early or self.interrupted

    @asynccontextmanager
    async def seen_through(self) -> AsyncIterator[None]:
        """What was saved before an error inside is on the disk after it, where the engine can still write."""
        try:
            yield
        except Exception:
            try:
                await asyncio.wait_for(self.settled(), SEEN_THROUGH_S)
            except (FettleError, TimeoutError) as lost:
                logger.warning("what was saved last may not be whole: %s", lost or "it takes too long")
            raise

    async def settled(self) -> None:
        """Return once what was saved so far is on the disk, and what it outlives is gone."""
        if self._under_way is not None:
            under_way, self._under_way = self._under_way, None
            await under_way
            self._sweep()

    def summary(self) -> Summary:
        """How it stands now."""
        return _summary(self.folder, self.progress, interrupted=self.interrupted and bool(self.remaining))

    @staticmethod
    def ended(folder: RunFolder) -> Summary:
        """How a run that is over ended."""
        return _summary(folder, _read_progress(folder), interrupted=False)

    def _early(self) -> bool:
        p = self.progress
        tired = self._patience is not None and p.without_better >= self._patience
        reached = self._target is not None and p.best is not None and self._sign * (p.best - self._target) >= 0
        alarmed = self._alarm is not None and bool(p.evaluations and p.evaluations[-1].get(self._alarm))
        return tired or reached or alarmed or p.called_off

    def _heed(self, answers: Sequence[bool]) -> None:
        if any(answers):
            self._update(called_off=True)

    async def _saved(self, policy: Policy, step: int) -> str:
        name = f"step-{step:06d}"
        if name not in (self.progress.checkpoint, self.progress.best_checkpoint):
            await self.settled()
            parts = [kept.save(_beside(name, part)) for part, kept in self._parts.items()]
            self._under_way = asyncio.gather(*parts, policy.save(name))
            await asyncio.sleep(0)  # each takes its place before the operations of the next step
        return name

    async def _checkpoint(self, policy: Policy, step: int) -> None:
        name = await self._saved(policy, step)
        now = time.perf_counter()
        kept = (*self.progress.kept, name)[-self._checkpoints.keep :]
        self._update(step=step, checkpoint=name, kept=kept, seconds=self.progress.seconds + now - self._since)
        self._since = now
        self._under_way = asyncio.ensure_future(self._commit(self._under_way, self.progress))

    async def _commit(self, saved: Awaitable[object] | None, progress: Progress) -> None:
        """Have a resumed run go on from what is saved, once it is."""
        if saved is not None:
            await saved
        write_atomically(self.folder.progress_path, progress.model_dump_json(indent=2) + "\n")
        self._on_disk = progress

    def _sweep(self) -> None:
        """Drop checkpoints that the progress file does not name: outlived ones, and those of steps to be done again.

        What is hidden is the engine's: policies that it has written down, and what it is writing.
        """
        named = {*_named(self.progress), *_named(self._on_disk)}
        for path in sorted(self.folder.checkpoints.glob("[!.]*")):
            if path.is_dir() and path.name.partition(".")[0] not in named:
                shutil.rmtree(path)

    def _path(self, name: str) -> str:
        return str(self.folder.checkpoints / name)

    def _update(self, **changes: object) -> None:
        self.progress = self.progress.model_copy(update=changes)


def _named(p: Progress) -> set[str | None]:
    """The checkpoints that a run must have to go on from there."""
    return {*p.kept, *p.held, p.checkpoint, p.best_checkpoint}


def _beside(name: str, part: str) -> str:
    """The name of a part's checkpoint: ``step-000020.critic`` of ``step-000020``; the policy's own without a part."""
    return f"{name}.{part}" if part else name


def _summary(folder: RunFolder, p: Progress, *, interrupted: bool) -> Summary:
    newest = str(folder.checkpoints / p.checkpoint) if p.checkpoint else ""
    return Summary(
        folder=folder.path,
        steps=p.step,
        tokens=p.tokens,
        seconds=p.seconds,
        first=p.evaluations[0] if p.evaluations else {},
        last=p.evaluations[-1] if p.evaluations else {},
        best=p.evaluations[-1 - p.without_better] if p.evaluations else {},
        checkpoint=newest,
        best_checkpoint=str(folder.checkpoints / p.best_checkpoint) if p.best_checkpoint else newest,
        interrupted=interrupted,
    )


def _read_progress(folder: RunFolder) -> Progress:
    if not folder.progress_path.is_file():
        return Progress()
    try:
        return Progress.model_validate_json(folder.progress_path.read_text())
    except ValidationError as error:
        raise CheckpointError(
            f"{folder.progress_path} cannot be read ({error.errors()[0]['msg']}): "
            "take it away to start the run anew, or bring back what it was"
        ) from error
