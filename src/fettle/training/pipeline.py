"""Runs one after another, each going on from what earlier ones left; what each left is written down with its digest."""

import functools
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from fettle.config import (
    PREVIOUS,
    STAGE,
    Frozen,
    Pipeline,
    RewardModelRun,
    StageConfig,
    TinyModel,
    models_of,
    with_models,
)
from fettle.errors import CheckpointError
from fettle.tracking import RunFolder, write_atomically
from fettle.training.session import Session, Summary

LEDGER = "pipeline.json"
"""In the pipeline's folder: what each stage started from and what it left, with digests."""


class Artifact(Frozen):
    """Weights, by path or name; a path within the pipeline's folder is told from there."""

    weights: str
    digest: str | None
    """Of the checkpoint's manifest; null for what is no checkpoint of ours."""


class Entry(Frozen):
    """One stage, as far as it has come."""

    started_from: Mapping[str, Artifact]
    """By the setting that names it."""
    left: Artifact | None = None
    """What later stages go on from; null until the stage is finished."""


class Ledger(Frozen):
    """A pipeline's chain of artifacts."""

    stages: Mapping[str, Entry] = {}
    """By name, in the order in which they were begun."""


@dataclass(frozen=True, slots=True)
class StageEnd:
    """How a stage ended."""

    config: StageConfig
    """With checkpoints in the place of earlier stages."""
    summary: Summary
    origin: str
    """What the stage's own model started from."""
    left: str
    """What later stages go on from."""
    digest: str | None

    @property
    def is_policy(self) -> bool:
        """Whether it left something that replies."""
        return not isinstance(self.config, RewardModelRun)


class Chain:
    """The artifacts of a pipeline in its folder.

    Raises:
        CheckpointError: the ledger cannot be read.
    """

    def __init__(self, folder: Path, digest: Callable[[str], str | None]) -> None:
        """``digest`` verifies a checkpoint and returns what identifies it; None for what is no checkpoint of ours."""
        self._folder = folder
        self._digest = functools.cache(digest)
        self._ledger = _read(folder / LEDGER)

    def is_finished(self, stage: StageConfig) -> bool:
        """Whether the stage has left what later ones go on from; one whose folder was taken away is done again."""
        entry = self._ledger.stages.get(stage.name)
        there = RunFolder(self._folder / stage.name).progress_path.is_file()
        return there and entry is not None and entry.left is not None

    def begin(self, stage: StageConfig) -> None:
        """Write down what a stage starts from, or verify that it is what the stage started from before.

        Raises:
            CheckpointError: it is not.
        """
        started_from = {key: self._artifact(named) for key, named in models_of(stage)}
        entry = self._ledger.stages.get(stage.name)
        if entry is None:
            self._enter(stage.name, Entry(started_from=started_from))
            return
        for key in {**entry.started_from, **started_from}:
            _check(entry.started_from.get(key), started_from.get(key), f"what {stage.name} started from as its {key}")

    def finish(self, stage: StageConfig, weights: str) -> str | None:
        """Write down what a stage left, or verify that it is what the stage left before; its digest.

        Raises:
            CheckpointError: it is not what the stage left.
        """
        left, entry = self._artifact(weights), self._ledger.stages[stage.name]
        if entry.left is None:
            self._enter(stage.name, entry.model_copy(update={"left": left}))
        else:
            _check(entry.left, left, f"what {stage.name} left")
        return left.digest

    def _artifact(self, weights: str) -> Artifact:
        path, root = Path(weights).resolve(), self._folder.resolve()
        told = path.relative_to(root).as_posix() if path.is_relative_to(root) else weights
        return Artifact(weights=told, digest=self._digest(weights))

    def _enter(self, name: str, entry: Entry) -> None:
        self._ledger = Ledger(stages={**self._ledger.stages, name: entry})
        write_atomically(self._folder / LEDGER, self._ledger.model_dump_json(indent=2) + "\n")


def started_from(folder: Path, stage: str) -> str | None:
    """What a stage's policy started from, as the pipeline in ``folder`` has it written down; None where it has not.

    Raises:
        CheckpointError: the ledger cannot be read.
    """
    entry = _read(folder / LEDGER).stages.get(stage, Entry(started_from={}))
    artifact = entry.started_from.get("policy.model")
    if artifact is None:
        return None
    within = folder / artifact.weights
    return str(within) if within.exists() else artifact.weights


async def train(
    pipeline: Pipeline, folder: Path, run_stage: Callable[[StageConfig], Awaitable[Summary]], chain: Chain
) -> list[StageEnd]:
    """Run the stages in order; one that was finished before is verified, and hands on what it left.

    Stops after a stage that was interrupted.

    Raises:
        CheckpointError: an artifact is not what it was.
    """
    ends: list[StageEnd] = []
    for described in pipeline.stages:
        stage = resolved(described, ends)
        chain.begin(stage)
        done = chain.is_finished(stage)
        summary = Session.ended(RunFolder(folder / stage.name)) if done else await run_stage(stage)
        origin = stage.policy.model
        if isinstance(origin, TinyModel):
            origin = str(folder / stage.name / "model")
        left = summary.best_checkpoint if isinstance(stage, RewardModelRun) else summary.checkpoint
        digest = None if summary.interrupted else chain.finish(stage, left)
        ends.append(StageEnd(stage, summary, origin, left, digest))
        if summary.interrupted:
            break
    return ends


def resolved(stage: StageConfig, ends: list[StageEnd]) -> StageConfig:
    """The stage, with what earlier ones left in the place of ``previous`` and ``stage:<name>``."""
    left = {f"{STAGE}{end.config.name}": end.left for end in ends}
    if ends:
        left[PREVIOUS] = ends[-1].left
    return with_models(stage, lambda named: left.get(named, named))


def _check(before: Artifact | None, now: Artifact | None, what: str) -> None:
    if now != before:
        raise CheckpointError(
            f"{what} has changed: it was {_told(before)}, and now it is {_told(now)}: "
            "bring back what was there, or start the pipeline anew"
        )


def _told(artifact: Artifact | None) -> str:
    if artifact is None:
        return "nothing"
    return artifact.weights + (f" with digest {artifact.digest[:12]}" if artifact.digest else "")


def _read(path: Path) -> Ledger:
    if not path.is_file():
        return Ledger()
    try:
        return Ledger.model_validate_json(path.read_text())
    except ValidationError as error:
        raise CheckpointError(
            f"{path} cannot be read ({error.errors()[0]['msg']}): bring back what it was, or start the pipeline anew"
        ) from error
