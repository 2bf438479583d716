"""A backend whose samples are drawn by others: training stays with the ranks, and samplers follow its weights."""

import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Protocol
from uuid import uuid4

from fettle.cluster.hearing import Ear, overheard
from fettle.cluster.parcel import Parcel
from fettle.cluster.parity import Parity
from fettle.cluster.pool import Pool
from fettle.config import AdamW, LossConfig, PolicySpec
from fettle.engine.base import Backend, Capabilities, Pooling, ReadRequest, SampleRequest
from fettle.types import Checkpoint, Completion, Datum, Floats, ForwardResult, OptimResult, PromptReading, Tokens


class Trainer(Backend, Protocol):
    """A backend that can tell what a policy would take of its memory, and may be asked to sample at any time."""

    def policy_bytes(self, spec: PolicySpec) -> int:
        """See ``LocalBackend.policy_bytes``."""
        ...


class SampledBeside:
    """Satisfies ``Backend``, and may be told to ``sample`` on a second thread.

    What samplers do not hold is drawn by the trainer itself: models and checkpoints that are sampled, versions that a
    server has moved on from, and everything if no sampler is left.
    """

    def __init__(self, trainer: Trainer, pool: Pool, parity: Parity) -> None:
        """Weights are handed over in a folder beside the trainer's checkpoints."""
        self._trainer = trainer
        self._pool = pool
        self._parity = parity
        self._place = f".samplers-{uuid4().hex[:8]}"
        self._numbers = count()
        self._pins: dict[str, Parcel] = {}
        self._folder: Path | None = None
        self._by_trainer = 0

    def close(self) -> None:
        """End the samplers, or leave servers as they were found; the trainer is not closed."""
        for pin in list(self._pins):
            self._release(pin)
        self._pool.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def capabilities(self) -> Capabilities:
        """The trainer's; sampling is beside it."""
        return replace(self._trainer.capabilities(), sampling_beside=True)

    def policy_bytes(self, spec: PolicySpec) -> int:
        """Of the trainer's memory."""
        return self._trainer.policy_bytes(spec)

    def create_policy(self, policy: str, spec: PolicySpec) -> int:
        """With the trainer."""
        return self._trainer.create_policy(policy, spec)

    def load_policy(self, policy: str, checkpoint: str, *, optimizer: bool) -> int:
        """With the trainer."""
        return self._trainer.load_policy(policy, checkpoint, optimizer=optimizer)

    def forward(self, policy: str, data: Sequence[Datum], loss: LossConfig) -> ForwardResult:
        """By the trainer."""
        return self._trainer.forward(policy, data, loss)

    def forward_backward(self, policy: str, data: Sequence[Datum], loss: LossConfig) -> ForwardResult:
        """By the trainer."""
        return self._trainer.forward_backward(policy, data, loss)

    def optim_step(self, policy: str, optimizer: AdamW, *, undoable: bool = False, empty: bool = False) -> OptimResult:
        """By the trainer."""
        return self._trainer.optim_step(policy, optimizer, undoable=undoable, empty=empty)

    def undo(self, policy: str) -> OptimResult:
        """By the trainer."""
        return self._trainer.undo(policy)

    def save(self, policy: str, name: str, *, optimizer: bool) -> "Future[Checkpoint]":
        """By the trainer."""
        return self._trainer.save(policy, name, optimizer=optimizer)

    def restore(self, policy: str, checkpoint: str, *, optimizer: bool) -> int:
        """By the trainer."""
        return self._trainer.restore(policy, checkpoint, optimizer=optimizer)

    def snapshot(self, policy: str, folder: Path) -> None:
        """By the trainer."""
        self._trainer.snapshot(policy, folder)

    def revive(self, policy: str, folder: Path) -> None:
        """By the trainer, who also draws from what was pinned then."""
        self._trainer.revive(policy, folder)

    def close_policy(self, policy: str) -> None:
        """With all that was pinned of it."""
        for pin in [pin for pin, parcel in self._pins.items() if parcel.policy == policy]:
            self._release(pin)
        self._parity.forget(policy)
        self._trainer.close_policy(policy)

    def pin(self, policy: str, name: str | None = None) -> tuple[str, int]:
        """The samplers have the weights, and mean the same by them as the trainer, when this returns.

        Raises:
            EngineError: a sampler cannot take them, or is further from the trainer than is allowed.
        """
        pin, version = self._trainer.pin(policy, name)
        try:
            self._pins[pin] = self._handed_over(policy, pin, version)
        except BaseException:
            self._trainer.unpin(pin)
            raise
        return pin, version

    def unpin(self, weights: str) -> None:
        """With the samplers, too."""
        self._release(weights)
        self._trainer.unpin(weights)

    def open(self, weights: str) -> int:
        """With the trainer."""
        return self._trainer.open(weights)

    def sample(self, weights: Sequence[str], requests: Sequence[SampleRequest]) -> list[list[Completion]]:
        """Each request by one sampler."""
        return overheard(requests, self._pool.heard, partial(self._drawn, weights))

    def _drawn(self, weights: Sequence[str], ear: Ear) -> list[list[Completion]]:
        """What no sampler holds, by the trainer."""
        parcels = [self._pins.get(name) for name in weights]
        drawn = self._pool.draw(["" if parcel is None else parcel.name for parcel in parcels], ear.elsewhere())
        found: list[list[Completion]] = [each or [] for each in drawn]
        left = [i for i, each in enumerate(drawn) if each is None]
        if left:
            self._by_trainer += len(left)
            own = self._trainer.sample([weights[i] for i in left], [ear.here(i) for i in left])
            for i, completions in zip(left, own, strict=True):
                found[i] = completions
        return found

    def logprobs(self, weights: str, sequences: Sequence[Tokens], *, temperature: float) -> list[Floats]:
        """By the trainer."""
        return self._trainer.logprobs(weights, sequences, temperature=temperature)

    def scores(self, weights: str, sequences: Sequence[Tokens]) -> list[float]:
        """By the trainer."""
        return self._trainer.scores(weights, sequences)

    def read(self, weights: str, requests: Sequence[ReadRequest]) -> list[PromptReading]:
        """By the trainer."""
        return self._trainer.read(weights, requests)

    def embed(self, weights: str, sequences: Sequence[Tokens], *, layer: int, pooling: Pooling) -> list[Floats]:
        """By the trainer."""
        return self._trainer.embed(weights, sequences, layer=layer, pooling=pooling)

    def statistics(self) -> Mapping[str, float]:
        """The trainer's, and how samplers do."""
        return {
            **self._trainer.statistics(),
            **self._pool.statistics(),
            "samplers/by_trainer": float(self._by_trainer),
            "parity/mean": self._parity.mean,
            "parity/max": self._parity.max,
        }

    def _handed_over(self, policy: str, pin: str, version: int) -> Parcel:
        """The weights with all samplers: those of a version that was pinned before are there already."""
        for parcel in self._pins.values():
            if (parcel.policy, parcel.version) == (policy, version):
                return parcel
        number = next(self._numbers)
        saved = self._trainer.save(policy, f"{self._place}/{number}", optimizer=False).result()
        self._folder = Path(saved.path).parent
        parcel = Parcel(f"fettle{self._place[9:]}-{number}-v{version}", policy, version, Path(saved.path))
        try:
            self._pool.publish(parcel)
            probe = self._parity.probe(policy, partial(self._drawn_by_trainer, pin))
            own = self._trainer.logprobs(pin, probe, temperature=1.0)
            self._parity.check(version, own, self._pool.logprobs(parcel, probe))
        except BaseException:
            self._drop(parcel)
            raise
        return parcel

    def _drawn_by_trainer(self, pin: str, requests: Sequence[SampleRequest]) -> list[list[Completion]]:
        return self._trainer.sample([pin] * len(requests), requests)

    def _release(self, pin: str) -> None:
        parcel = self._pins.pop(pin, None)
        if parcel is not None and parcel not in self._pins.values():
            self._drop(parcel)

    def _drop(self, parcel: Parcel) -> None:
        self._pool.forget(parcel.name)
        shutil.rmtree(parcel.folder, ignore_errors=True)
