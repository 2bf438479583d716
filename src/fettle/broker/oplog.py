"""The op log of one policy: operations take effect in the order of their numbers, and each exactly once."""

import asyncio
import functools
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from fettle.errors import SequenceError
from fettle.types import Datum

RESULTS_KEPT = 1024
"""Answers kept for callers that ask again; older ones are refused as no longer known."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One state-changing call: whose, which in order, what it says, and how it is carried out."""

    incarnation: int
    """Which holder of the policy sends it; a newer holder shuts out the older ones."""
    seq: int
    digest: str
    """A hash of everything the call says."""
    work: Callable[[], Awaitable[Any]]


class OpLog:
    """Order and exactly-once for the operations of one policy, whatever order they arrive in."""

    def __init__(self, *, incarnation: int = 0, next_seq: int = 0) -> None:
        self._incarnation = incarnation
        self._next = next_seq
        self._entries: dict[int, tuple[str, asyncio.Future[Any]]] = {}
        self._held: dict[int, Operation] = {}

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
            digest, future = self._entries[operation.seq]
            if digest != operation.digest:
                raise SequenceError(
                    f"operation {operation.seq} was sent before with different contents: use the next number"
                )
            return future
        if operation.seq < self._next:
            raise SequenceError(f"the answer of operation {operation.seq} is no longer kept")
        future = asyncio.get_running_loop().create_future()
        self._entries[operation.seq] = (operation.digest, future)
        self._held[operation.seq] = operation
        self._run_what_is_due()
        return future

    def fence(self) -> int:
        """Shut out the present holder; returns the incarnation of the next."""
        self._incarnation += 1
        return self._incarnation

    def _run_what_is_due(self) -> None:
        # The journal's place is here: an operation is written down before it is carried out and answered.
        while self._next in self._held:
            operation = self._held.pop(self._next)
            _, future = self._entries[self._next]
            self._next += 1
            asyncio.ensure_future(operation.work()).add_done_callback(functools.partial(_settle, future))
            self._entries.pop(self._next - 1 - RESULTS_KEPT, None)


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
    """A hash of a call's name and everything it says, the same on every machine."""
    hasher = hashlib.blake2b(kind.encode(), digest_size=16)
    for part in parts:
        if isinstance(part, BaseModel):
            hasher.update(part.model_dump_json().encode())
        elif isinstance(part, str | bool):
            hasher.update(repr(part).encode())
        else:
            for datum in part:
                hasher.update(_bytes_of(datum))
        hasher.update(b"\x1f")
    return hasher.hexdigest()


def _bytes_of(datum: Datum) -> bytes:
    parts = [
        f"{len(datum.tokens)}/{datum.temperature!r}/{datum.group}/{sorted(datum.scalars.items())}".encode(),
        datum.tokens.tobytes(),
    ]
    for name, values in sorted({"loss_mask": datum.loss_mask, **datum.streams}.items()):
        parts += [name.encode(), values.tobytes()]
    return b"".join(parts)
