"""A backend of processes that were started together, by torchrun or SLURM: this one leads, and the others follow."""

import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from fettle.cluster.channels import Channels, GoneError
from fettle.cluster.collective import BrokenError
from fettle.cluster.needs import of_rank
from fettle.cluster.rank import MAKING, Answer, Rank, gist
from fettle.cluster.shares import Readers, Said, dealt, gathered
from fettle.config import AdamW, LaunchedEngine, LossConfig, PolicySpec
from fettle.engine.base import Capabilities, Pooling, ReadRequest, SampleRequest
from fettle.errors import EngineError, FettleError
from fettle.types import Checkpoint, Completion, Datum, Floats, ForwardResult, OptimResult, PromptReading, Tokens

Word = tuple[str, tuple[Any, ...]]
"""A method of a rank, and what it is called with."""

BEGIN, END = "begin", "end"
GROUP = 1
"""The generation of the only group that there ever is."""
LOOKED_FOR = 10.0
"""Seconds in which a process that has ended is found out by those that it has left alone."""


def follow(channel: Connection, address: Callable[[], str]) -> int:
    """Do what the first process says, until it says how it ended.

    Raises:
        EngineError: it has ended without a word.
    """
    rank: Rank | None = None
    while True:
        try:
            method, said = channel.recv()
            if method == END:
                return int(said[0])
            if method == BEGIN:
                settings, checkpoints, parts = said
                rank = Rank(settings, checkpoints, parts, address)
            else:
                assert rank is not None, "processes begin before they work"
                channel.send(carried_out(rank, (method, said)))
        except (EOFError, OSError) as error:
            raise EngineError("the first of the processes has ended, and this one with it") from error


def carried_out(rank: Rank, word: Word) -> Answer:
    """What a rank answers; what goes wrong in it is part of that."""
    method, said = word
    try:
        found = getattr(rank, method)(*said)
    except FettleError as error:
        return Answer(error=error)
    except BrokenError as error:
        return Answer(broken=str(error))
    return found if isinstance(found, Answer) else Answer(found)


class Launched:
    """Satisfies ``Backend``. ``checkpoints`` is a folder that all machines see under this name.

    When one of the processes ends, every call from then on says so: whoever started them can start them anew.
    """

    def __init__(
        self, settings: LaunchedEngine, channels: Channels, address: Callable[[], str], *, checkpoints: Path
    ) -> None:
        """Returns when all have begun.

        Raises:
            EngineError: one has ended, or cannot begin.
        """
        self._parted = settings.sharded
        self._checkpoints = checkpoints.resolve()
        self._channels = channels
        self._turn = threading.RLock()
        self._pins: dict[str, str] = {}
        self._pins_made = 0
        self._readers = Readers(self._shared, self._pins, settings.sharded)
        self._lost: str | None = None
        own = of_rank(settings)
        self._rank = Rank(own, self._checkpoints, settings.sharded, address)
        made = (own, self._checkpoints, settings.sharded)
        size = len(channels) + 1
        try:
            channels.say(dict.fromkeys(range(1, size), (BEGIN, made)))
        except GoneError as error:
            raise self._ended(error.ranks) from error
        port = self._by_this("expect") if size > 1 else 0
        words: list[Word | None] = [("meet", (GROUP, rank, size, address(), port)) for rank in range(size)]
        self._told(words)
        self._own: Capabilities = replace(self._by_first("capabilities"), engine="launched")

    def capabilities(self) -> Capabilities:
        """What a process can do."""
        return self._own

    def policy_bytes(self, spec: PolicySpec) -> int:
        """Of one process: see ``LocalBackend.policy_bytes``."""
        return int(self._by_first("policy_bytes", spec))

    def create_policy(self, policy: str, spec: PolicySpec) -> int:
        """In every process."""
        return int(self._by_all("create_policy", policy, spec))

    def load_policy(self, policy: str, checkpoint: str, *, optimizer: bool) -> int:
        """In every process."""
        return int(self._by_all("load_policy", policy, checkpoint, optimizer=optimizer))

    def restore(self, policy: str, checkpoint: str, *, optimizer: bool) -> int:
        """In every process."""
        return int(self._by_all("restore", policy, checkpoint, optimizer=optimizer))

    def revive(self, policy: str, folder: Path) -> None:
        """In every process."""
        self._by_all("revive", policy, folder)

    def forward(self, policy: str, data: Sequence[Datum], loss: LossConfig) -> ForwardResult:
        """Each its share."""
        found: ForwardResult = self._by_all("forward", policy, data, loss)
        return found

    def forward_backward(self, policy: str, data: Sequence[Datum], loss: LossConfig) -> ForwardResult:
        """Each its share; all are told the sum."""
        found: ForwardResult = self._by_all("forward_backward", policy, data, loss)
        return found

    def optim_step(self, policy: str, optimizer: AdamW, *, undoable: bool = False, empty: bool = False) -> OptimResult:
        """In every process, the same."""
        found: OptimResult = self._by_all("optim_step", policy, optimizer, undoable=undoable, empty=empty)
        return found

    def undo(self, policy: str) -> OptimResult:
        """In every process."""
        found: OptimResult = self._by_all("undo", policy)
        return found

    def snapshot(self, policy: str, folder: Path) -> None:
        """By the first; where layers are parted, by all of them."""
        shutil.rmtree(folder, ignore_errors=True)
        self._by_writers("snapshot", policy, folder)

    def save(self, policy: str, name: str, *, optimizer: bool) -> "Future[Checkpoint]":
        """By the first, beside what follows; where layers are parted, by all of them, before anything else."""
        found: Future[Checkpoint] = Future()
        self._by_writers("save", policy, name, optimizer=optimizer)
        if self._parted:
            self._told([("written", (GROUP, name))] * self._size)
            found.set_result(self._rank.sealed(GROUP, name).value())
        else:
            threading.Thread(target=self._written, args=(name, found), name="fettle-saves", daemon=True).start()
        return found

    def _written(self, name: str, found: "Future[Checkpoint]") -> None:
        try:
            found.set_result(self._rank.written(GROUP, name).value())
        except FettleError as error:
            found.set_exception(error)

    def close_policy(self, policy: str) -> None:
        """In every process."""
        self._by_all("close_policy", policy)
        for name in [name for name, owner in self._pins.items() if owner == policy]:
            del self._pins[name]

    def pin(self, policy: str, name: str | None = None) -> tuple[str, int]:
        """In every process, by one name."""
        if name is None:
            self._pins_made += 1
            name = f"{policy}#{self._pins_made}"
        found: tuple[str, int] = self._by_all("pin", policy, name)
        self._pins[name] = policy
        return found

    def unpin(self, weights: str) -> None:
        """In every process."""
        if self._pins.pop(weights, None) is not None:
            self._by_all("unpin", weights)

    def open(self, weights: str) -> int:
        """In every process."""
        return int(self._by_all("open", weights))

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
        """Of the first."""
        found: Mapping[str, float] = self._by_first("statistics")
        return {**found, "ranks": float(self._size)}

    @property
    def _size(self) -> int:
        return len(self._channels) + 1

    def _by_all(self, operation: str, *positional: Any, **named: Any) -> Any:
        """What an operation comes to, which must be the same in all processes."""
        word: Word = ("carry_out", (GROUP, operation, (positional, named)))
        with self._turn:
            answers = [answer for answer in self._answers([word] * self._size) if answer is not None]
            failed = [answer.error for answer in answers if answer.error is not None]
            if failed and len(failed) < len(answers) and operation in MAKING:
                close: Word = ("carry_out", (GROUP, "close_policy", ((positional[0],), {})))
                self._answers([close if answer.error is None else None for answer in answers])
                raise failed[0]
        if len(failed) == len(answers):
            raise failed[0]
        first, *others = [gist(answer.result) if answer.error is None else answer.error for answer in answers]
        if any(repr(other) != repr(first) for other in others):
            self._lost = f"the processes came to different ends of {operation}: {first} and {others}"
            raise EngineError(self._lost)
        return answers[0].result

    def _by_first(self, operation: str, *positional: Any, **named: Any) -> Any:
        return self._by_this("share", GROUP, operation, (positional, named), [])

    def _by_this(self, method: str, *said: Any) -> Any:
        return self._told([(method, said), *[None] * (self._size - 1)])[0]

    def _by_writers(self, operation: str, *positional: Any, **named: Any) -> None:
        if self._parted:
            self._by_all(operation, *positional, **named)
        else:
            with self._turn:
                self._by_first(operation, *positional, **named)

    def _shared(
        self, operation: str, weights: Sequence[str], costs: Sequence[int], part: Callable[[Sequence[int]], Said]
    ) -> list[Any]:
        """The answers to requests, each of which one process answers; all read together what is parted."""
        shares = dealt(costs, self._size)
        read = sorted(set(weights))
        words: list[Word | None] = [
            ("share", (GROUP, operation, part(share) if share else None, read)) if share or self._parted else None
            for share in shares
        ]
        with self._turn:
            return gathered(shares, self._told(words))

    def _told(self, words: Sequence[Word | None]) -> list[Any]:
        """What their answers say."""
        return [None if answer is None else answer.value() for answer in self._answers(words)]

    def _answers(self, words: Sequence[Word | None]) -> list[Answer | None]:
        """What each process answers to its word; the first of them is this one.

        Raises:
            EngineError: one has ended.
        """
        with self._turn:
            if self._lost is not None:
                raise EngineError(self._lost)
            others = {rank: word for rank, word in enumerate(words) if rank and word is not None}
            try:
                self._channels.say(others)
                own = None if words[0] is None else self._own_answer(words[0])
                if own is not None and own.broken is not None:
                    raise self._ended(self._channels.gone(LOOKED_FOR), own.broken)
                heard = dict(zip(others, self._channels.heard(list(others)), strict=True))
            except GoneError as error:
                raise self._ended(error.ranks) from error
        found = [own, *(heard.get(rank) for rank in range(1, self._size))]
        for rank, answer in enumerate(found):
            if answer is not None and answer.broken is not None:
                raise self._ended([], f"in rank {rank}: {answer.broken}")
        return found

    def _own_answer(self, word: Word) -> Answer:
        """Of this process, which is lost to them where it fails: what they did by then is not undone."""
        try:
            return carried_out(self._rank, word)
        except Exception as error:
            self._ended([], repr(error))
            raise

    def _ended(self, ranks: Sequence[int], why: str = "") -> EngineError:
        """What every call from now on says."""
        lost = f"rank {', '.join(map(str, ranks))} has ended" if ranks else f"the ranks lost each other ({why})"
        self._lost = f"{lost}, and all end with it"
        return EngineError(self._lost)
