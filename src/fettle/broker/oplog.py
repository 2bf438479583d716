"""The op log of one policy: operations take effect in the order of their numbers, and each exactly once."""

import asyncio
import functools
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from fettle.errors import SequenceError
from fettle.types import Datum, ForwardResult

RESULTS_KEPT = 1024
"""Answers kept for callers that ask again; older ones are refused as no longer known."""

RESULTS_BYTES = 64 << 20
"""Beyond so many bytes of batches and what came of them, fewer answers are kept."""

RESULTS_SURE = 16
"""The newest answers, which are kept whatever their size; where batches are large, only the last is kept as it was."""

DIGEST_LENGTH = 32
"""Hexadecimal digits kept of a hash."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One state-changing call: whose, which in order, what it says, and how it is carried out."""

    incarnation: int
    """Which holder of the policy sends it; a newer holder shuts out the older ones."""
    seq: int
    digest: Callable[[], str]
    """A hash of everything the call says, asked for only where its number comes a second time or batches are large."""
    work: Callable[[], Awaitable[Any]]
    nbytes: int = 0
    """Memory that ``digest`` holds on to."""


class _Entry(NamedTuple):
    """What is left of an operation, for those that send it again."""

    digest: Callable[[], str]
    answer: asyncio.Future[Any]


class OpLog:
    """Order and exactly-once for the operations of one policy, whatever order they arrive in.

    An answer can be asked for again until ``RESULTS_KEPT`` newer ones are there, or, where batches are large, until
    newer ones fill ``RESULTS_BYTES``; the newest ``RESULTS_SURE`` can be in any case.
    """

    def __init__(self, *, incarnation: int = 0, next_seq: int = 0) -> None:
        self._incarnation = incarnation
        self._next = next_seq
        self._entries: dict[int, _Entry] = {}
        self._waiting: dict[int, Operation] = {}
        self._sizes: dict[int, int] = {}  # of what came of those that are done
        self._said: dict[int, int] = {}  # and of what those hold on to that are not hashed yet

    def submit(self, operation: Operation) -> asyncio.Future[Any]:
        """The future of the operation's answer; the same future for the same operation sent again.

        An operation whose predecessors have not come waits for them. One that fails has used up its number:
        its error is its answer, and the next operation runs.

        Raises:
            SequenceError: an older holder sent it, its number was used for something else, or its answer is
                no longer kept.
        """
        if operation.incarnation != self._incarnation:
            raise SequenceError(
                f"operation {operation.seq} comes from incarnation {operation.incarnation} of this policy, and "
                f"incarnation {self._incarnation} holds it now: load the policy again"
            )
        if operation.seq in self._entries:
            digest_before, future = self._entries[operation.seq]
            if digest_before() != operation.digest():
                raise SequenceError(
                    f"operation {operation.seq} was sent before with different contents: use the next number"
                )
            return future
        if operation.seq < self._next:
            raise SequenceError(f"the answer of operation {operation.seq} is no longer kept")
        future = asyncio.get_running_loop().create_future()
        self._entries[operation.seq] = _Entry(operation.digest, future)
        self._waiting[operation.seq] = operation
        self._run_what_is_due()
        return future

    def fence(self) -> int:
        """Shut out the present holder; returns the incarnation of the next."""
        self._incarnation += 1
        return self._incarnation

    def _run_what_is_due(self) -> None:
        # The journal's place is here: an operation is written down before it is carried out and answered.
        while self._next in self._waiting:
            operation = self._waiting.pop(self._next)
            answer = self._entries[self._next].answer
            self._next += 1
            done = asyncio.ensure_future(operation.work())
            done.add_done_callback(functools.partial(_settle, answer))
            done.add_done_callback(functools.partial(self._let_go, operation))

    def _let_go(self, newest: Operation, done: asyncio.Future[Any]) -> None:
        """Drop the oldest answers, now that there is a new one, and then the oldest batches."""
        failed = done.cancelled() or done.exception() is not None
        self._sizes[newest.seq] = 0 if failed else _size(done.result())
        self._said[newest.seq] = newest.nbytes
        while len(self._sizes) > RESULTS_KEPT or (self._bytes() > RESULTS_BYTES and len(self._sizes) > RESULTS_SURE):
            oldest = next(iter(self._sizes))
            del self._sizes[oldest], self._entries[oldest]
            self._said.pop(oldest, None)
        while self._bytes() > RESULTS_BYTES and len(self._said) > 1:
            oldest = next(iter(self._said))
            del self._said[oldest]
            entry = self._entries[oldest]
            self._entries[oldest] = entry._replace(digest=_always(entry.digest()))

    def _bytes(self) -> int:
        return sum(self._sizes.values()) + sum(self._said.values())


def _always(said: str) -> Callable[[], str]:
    return lambda: said


def _size(answer: object) -> int:
    """Bytes of what grows with a batch."""
    if not isinstance(answer, ForwardResult):
        return 0
    return sum(row.nbytes for row in (*answer.logprobs, *answer.values)) + 8 * len(answer.scores)


def _settle(answer: asyncio.Future[Any], done: asyncio.Future[Any]) -> None:
    if answer.cancelled():
        return
    if done.cancelled():
        answer.cancel()
    elif (error := done.exception()) is not None:
        answer.set_exception(error)
        answer.exception()  # A caller that never asks has its error in the log of operations, not on the console.
    else:
        answer.set_result(done.result())


def digest(kind: str, *parts: BaseModel | Sequence[Datum] | str | bool) -> str:
    """A hash of a call's name and everything it says, whatever the byte order of the machine.

    What is hashed begins with an outline that gives each array's name, type and length, so that no other call has the
    same bytes.
    """
    outline: list[object] = [kind]
    arrays: list[NDArray[Any]] = []
    for part in parts:
        if isinstance(part, BaseModel):
            outline.append(part.model_dump_json())
        elif isinstance(part, str | bool):
            outline.append(part)
        else:
            outline.append([_outline(datum, arrays) for datum in part])
    hasher = hashlib.sha256(repr(outline).encode())
    for array in arrays:
        hasher.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).data)
    return hasher.hexdigest()[:DIGEST_LENGTH]


def _outline(datum: Datum, arrays: list[NDArray[Any]]) -> tuple[object, ...]:
    """What a datum says but for its arrays, which are put to the others."""
    names = sorted(datum.streams)
    own = [datum.tokens, datum.loss_mask, *[datum.streams[name] for name in names]]
    arrays += own
    types = "".join([array.dtype.char for array in own])
    scalars = sorted(datum.scalars.items()) if datum.scalars else ""
    return len(datum.tokens), types, datum.temperature, datum.group, scalars, *names
