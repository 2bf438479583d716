"""A group of ranks as one backend: what is asked of it, each of them is told."""

import logging
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from fettle.cluster.needs import of_rank, of_samplers
from fettle.cluster.notice import Notice
from fettle.cluster.rank import MAKING, Answer, Facts, gist
from fettle.cluster.ranks import LostError, Ranks
from fettle.cluster.recall import Done, Recall
from fettle.cluster.saving import Saving
from fettle.cluster.session import connected
from fettle.cluster.shares import Readers, Said, dealt, gathered
from fettle.config import AdamW, LossConfig, PolicySpec, RayEngine
from fettle.engine.base import Capabilities, Pooling, ReadRequest, SampleRequest
from fettle.errors import EngineError
from fettle.types import Checkpoint, Completion, Datum, Floats, ForwardResult, OptimResult, PromptReading, Tokens

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

LOSSES_IN_A_ROW = 5
"""How often ranks may be lost in the course of one operation before it is given up."""


class ClusterBackend:
    """Satisfies ``Backend``. ``checkpoints`` is a folder that every machine of the cluster sees under this name.

    Ranks that are lost are replaced, and what was done since the policies were last written down is done again, to the
    same bits: whoever calls only notices that it takes longer.
    """

    def __init__(self, settings: RayEngine, *, checkpoints: Path) -> None:
        """Takes as long as the ranks need to begin.

        Raises:
            UnreachableError: there is no cluster.
            EngineError: there is no room for the ranks, or they do not begin.
        """
        self._settings = settings
        self._checkpoints = checkpoints.resolve()
        self._turn = threading.RLock()  # held by whoever changes policies, and while ranks are replaced
        self._pins: dict[str, str] = {}
        self._pins_made = 0
        self._lost: LostError | None = None
        self._in_place = 0
        """The generation of ranks that have all policies as they are."""
        self._saving: dict[Path, Future[Checkpoint]] = {}
        self._notice: Notice | None = None
        self.recoveries: list[float] = []
        """Seconds from when ranks were found to be lost until all was as it had been."""
        own = of_rank(settings, beside=settings.workers)
        threads = own.threads or 1
        need = {"CPU": float(threads), **({"GPU": 1.0} if own.device == "cuda" else {})}
        self._recall = Recall(self._checkpoints / f".ranks-{uuid4().hex[:8]}", seconds=settings.repeated_seconds)
        self._leave = connected(settings, processors=settings.workers * threads + of_samplers(settings))
        try:
            self._ranks = Ranks(settings, need, lambda: (own, self._checkpoints, settings.sharded))
        except BaseException as error:
            self._leave()
            if isinstance(error, LostError):
                raise EngineError(f"the ranks cannot begin: {error}") from error
            raise
        self._readers = Readers(self._shared, self._pins, settings.sharded, self._ranks.heard)
        try:
            told: Capabilities = self._by_first("capabilities")
            self._own = replace(told, engine="ray")
        except LostError as error:
            self.close()
            raise EngineError(f"the ranks cannot begin: {error}") from error
        self._notice = Notice(self._warned)

    def close(self) -> None:
        """End the ranks, and a cluster of our own."""
        if self._notice is not None:
            self._notice.close()
        self._ranks.close()
        self._recall.close()
        self._leave()

    @property
    def replaced(self) -> int:
        """How many ranks were lost and replaced so far."""
        return self._ranks.replaced

    def facts(self) -> list[Facts]:
        """Where each rank is."""
        with self._turn:
            return self._surely(self._ranks.facts)

    def capabilities(self) -> Capabilities:
        """What a rank can do."""
        return self._own

    def policy_bytes(self, spec: PolicySpec) -> int:
        """How much memory a new policy would take in a rank: see ``LocalBackend.policy_bytes``."""
        with self._turn:
            return int(self._surely(lambda: self._by_first("policy_bytes", spec)))

    def create_policy(self, policy: str, spec: PolicySpec) -> int:
        """On every rank."""
        return int(self._changed(policy, "create_policy", policy, spec))

    def load_policy(self, policy: str, checkpoint: str, *, optimizer: bool) -> int:
        """On every rank."""
        self._settle(Path(checkpoint))
        return int(self._changed(policy, "load_policy", policy, checkpoint, optimizer=optimizer))

    def restore(self, policy: str, checkpoint: str, *, optimizer: bool) -> int:
        """On every rank."""
        self._settle(Path(checkpoint))
        return int(self._changed(policy, "restore", policy, checkpoint, optimizer=optimizer))

    def revive(self, policy: str, folder: Path) -> None:
        """On every rank."""
        self._changed(policy, "revive", policy, folder)

    def forward(self, policy: str, data: Sequence[Datum], loss: LossConfig) -> ForwardResult:
        """Each rank its share."""
        with self._turn:
            found: ForwardResult = self._surely(lambda: self._on_all("forward", (policy, data, loss), {}))
        return found

    def forward_backward(self, policy: str, data: Sequence[Datum], loss: LossConfig) -> ForwardResult:
        """Each rank its share; all are told the sum."""
        found: ForwardResult = self._changed(policy, "forward_backward", policy, data, loss)
        return found

    def optim_step(self, policy: str, optimizer: AdamW, *, undoable: bool = False, empty: bool = False) -> OptimResult:
        """On every rank, the same."""
        found: OptimResult = self._changed(policy, "optim_step", policy, optimizer, undoable=undoable, empty=empty)
        return found

    def undo(self, policy: str) -> OptimResult:
        """On every rank."""
        found: OptimResult = self._changed(policy, "undo", policy)
        return found

    def snapshot(self, policy: str, folder: Path) -> None:
        """By the first rank, which has all that the others have; where layers are parted, by all of them."""
        with self._turn:
            self._surely(lambda: self._written(policy, folder))

    def save(self, policy: str, name: str, *, optimizer: bool) -> "Future[Checkpoint]":
        """By the first rank; where layers are parted, by all of them."""
        saving = Saving(policy, name, self._checkpoints / name, optimizer=optimizer)
        self._settle(saving.folder)
        with self._turn:
            self._surely(lambda: self._begin(saving))
            self._recall.note(policy, Done("save", (saving,), {}), 0.0)
        self._saving[saving.folder] = saving.found
        saving.follow(self._ranks, self._make_good)
        return saving.found

    def _settle(self, folder: Path) -> None:
        """One checkpoint is written under a name, and what is asked for is first whole."""
        self._saving = {into: found for into, found in self._saving.items() if not found.done()}
        if folder in self._saving:
            wait([self._saving[folder]])

    def _begin(self, saving: Saving) -> None:
        if not saving.found.done():
            copied = partial(self._by_writers, "save", *saving.said, **saving.how)
            saving.begin(self._ranks, copied, parted=self._settings.sharded)

    def _make_good(self, lost: LostError) -> None:
        """Of ranks that were lost as they wrote; called on the thread that waits for them."""
        with self._turn:
            self._lost = lost
            self._surely(lambda: None)

    def close_policy(self, policy: str) -> None:
        """On every rank."""
        with self._turn:
            self._surely(lambda: self._on_all("close_policy", (policy,), {}))
            self._recall.forget(policy)
            for name in [name for name, owner in self._pins.items() if owner == policy]:
                del self._pins[name]

    def pin(self, policy: str, name: str | None = None) -> tuple[str, int]:
        """On every rank, by one name."""
        if name is None:
            self._pins_made += 1
            name = f"{policy}#{self._pins_made}"
        found: tuple[str, int] = self._changed(policy, "pin", policy, name)
        self._pins[name] = policy
        return found

    def unpin(self, weights: str) -> None:
        """On every rank."""
        policy = self._pins.pop(weights, None)
        if policy is not None:
            self._changed(policy, "unpin", weights)

    def open(self, weights: str) -> int:
        """On every rank."""
        with self._turn:
            return int(self._surely(lambda: self._on_all("open", (weights,), {})))

    def sample(self, weights: Sequence[str], requests: Sequence[SampleRequest]) -> list[list[Completion]]:
        """Each rank some of the requests."""
        return self._readers.sample(weights, requests)

    def logprobs(self, weights: str, sequences: Sequence[Tokens], *, temperature: float) -> list[Floats]:
        """Each rank some of the sequences."""
        return self._readers.logprobs(weights, sequences, temperature=temperature)

    def scores(self, weights: str, sequences: Sequence[Tokens]) -> list[float]:
        """Each rank some of the sequences."""
        return self._readers.scores(weights, sequences)

    def read(self, weights: str, requests: Sequence[ReadRequest]) -> list[PromptReading]:
        """Each rank some of the requests."""
        return self._readers.read(weights, requests)

    def embed(self, weights: str, sequences: Sequence[Tokens], *, layer: int, pooling: Pooling) -> list[Floats]:
        """Each rank some of the sequences."""
        return self._readers.embed(weights, sequences, layer=layer, pooling=pooling)

    def statistics(self) -> Mapping[str, float]:
        """Of the first rank."""
        with self._turn:
            found: Mapping[str, float] = self._surely(lambda: self._by_first("statistics"))
        return {**found, "ranks": float(len(self._ranks)), "ranks_replaced": float(self._ranks.replaced)}

    def _changed(self, policy: str, operation: str, *positional: Any, **named: Any) -> Any:
        """An operation that changes a policy, which is remembered."""
        with self._turn:
            started = time.perf_counter()
            result = self._surely(lambda: self._on_all(operation, positional, named))
            done = Done(operation, positional, named)
            folder = self._recall.note(policy, done, time.perf_counter() - started)
            if folder is not None:
                started = time.perf_counter()
                self._surely(lambda: self._written(policy, folder))
                self._recall.written(policy, folder, time.perf_counter() - started)
        return result

    def _warned(self, nodes: frozenset[str]) -> None:
        """Machines are about to go: all policies are written down at once, and ranks move that can."""
        with self._turn:
            self._surely(self._write_all)
            moved = self._ranks.vacate(nodes)
            if moved:
                self._lost = LostError(f"{moved} ranks move, as their machines are about to go", self._ranks.generation)

    def _write_all(self) -> None:
        for policy, folder in self._recall.unwritten():
            started = time.perf_counter()
            self._written(policy, folder)
            self._recall.written(policy, folder, time.perf_counter() - started)

    def _surely(self, work: Callable[[], Result]) -> Result:
        """What the work comes to, with the ranks mended as often as they are lost over it.

        Raises:
            EngineError: they were lost too often, or cannot be mended.
        """
        for _ in range(LOSSES_IN_A_ROW):
            try:
                self._mended()
                return work()
            except LostError as error:
                logger.warning("%s", error)
                self._lost = error
        raise EngineError(
            f"ranks were lost {LOSSES_IN_A_ROW} times in a row over one operation, and it is given up; "
            f"the last time: {self._lost}"
        )

    def _mended(self) -> None:
        """Bring lost ranks, and with them all policies, to where they were."""
        with self._turn:
            lost = self._lost
            if lost is None:
                return
            started = time.perf_counter()
            if lost.generation >= self._in_place:
                self._ranks.mend()
                for done in self._recall.operations():
                    if done.operation == "save":
                        self._begin(*done.positional)
                    else:
                        self._on_all(done.operation, done.positional, done.named)
                self._in_place = self._ranks.generation
            self._lost = None
            self.recoveries.append(time.perf_counter() - started)

    def _on_all(self, operation: str, positional: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """What an operation comes to, which must be the same on all ranks."""
        answers = self._ranks.all(operation, *positional, **named)
        failed = [answer.error for answer in answers if answer.error is not None]
        if len(failed) == len(answers):
            raise failed[0]
        if failed and operation in MAKING:
            closed: Said = ((positional[0],), {})
            self._ranks.each("close_policy", [closed if answer.error is None else None for answer in answers])
            raise failed[0]
        first, *others = [gist(answer.result) if answer.error is None else answer.error for answer in answers]
        if any(repr(other) != repr(first) for other in others):
            raise LostError(
                f"the ranks came to different ends of {operation}: {first} and {others}", self._ranks.generation
            )
        return answers[0].result

    def _by_first(self, operation: str, *positional: Any, **named: Any) -> Any:
        parts: list[Said | None] = [None] * len(self._ranks)
        parts[0] = (positional, named)
        return _values(self._ranks.each(operation, parts))[0]

    def _by_writers(self, operation: str, *positional: Any, **named: Any) -> Any:
        """By the first rank, or by all of them where each holds a part."""
        if self._settings.sharded:
            return self._on_all(operation, positional, named)
        return self._by_first(operation, *positional, **named)

    def _written(self, policy: str, folder: Path) -> None:
        """Write a policy down, in the place of what a rank that was lost may have left there."""
        shutil.rmtree(folder, ignore_errors=True)
        self._by_writers("snapshot", policy, folder)

    def _shared(
        self, operation: str, weights: Sequence[str], costs: Sequence[int], part: Callable[[Sequence[int]], Said]
    ) -> list[Any]:
        beside = operation == "sample" and self._settings.sampling_threads is not None

        def work() -> list[Any]:
            shares = dealt(costs, len(self._ranks))
            parts = [part(share) if share else None for share in shares]
            answers = self._ranks.each(operation, parts, weights=weights, beside=beside)
            return gathered(shares, _values(answers))

        if beside:
            return self._surely(work)
        with self._turn:
            return self._surely(work)


def _values(answers: Sequence[Answer | None]) -> list[Any]:
    return [None if answer is None else answer.value() for answer in answers]
