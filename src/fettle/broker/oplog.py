"""The op log of one policy: operations take effect in the order of their numbers, and each exactly once."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from fettle.broker.promises import Promise, order_of
from fettle.broker.written import OPENING, Order, Written
from fettle.calls import Call, Close, Create, Load, call_tree
from fettle.errors import BusyError, CancelledError, FettleError, SequenceError
from fettle.frames import Tree, packed, result_tree

MOST_AHEAD = 1024
"""Numbers between the one that is due and one that is taken in."""
AHEAD_AGAIN_S = 1.0
"""Seconds after which a number beyond them may be near enough."""

Said = Callable[[], str] | str
"""A hash of everything a call says, or how to come by it."""


class Due(NamedTuple):
    """An operation whose turn it is."""

    promise: Promise
    call: Callable[[], Call]


class OpLog:
    """Order and exactly-once for the operations of one policy, whatever order they arrive in."""

    def __init__(self, name: str, opening: Promise, call: Create | Load, *, tenant: str) -> None:
        self.name = name
        self.tenant = tenant
        self.opening = opening
        self.call = call
        self.incarnation = 0
        """Which holder of the policy may send operations; a newer holder shuts out the older ones."""
        self.next_seq = 0
        """The number that is due."""
        self.version = 0
        self.closed = False
        """There is no such policy on the backend any longer, and will be none."""
        self.lost: FettleError | None = None
        """Why this process could not take it up from the last one; all that is written of it stays as it is."""
        self.held: dict[Order, Callable[[], None]] = {}
        """How operations are queued whose turn it was while the policy could not be taken back."""
        self.promises: dict[tuple[int, int], Promise] = {}
        """Those that are not done, or whose answers are kept, by incarnation and number."""
        self.written = Written(sources={origin(call): OPENING})
        self._waiting: dict[int, Due] = {}

    def known(self, incarnation: int, seq: int, said: Said) -> Promise | None:
        """The promise that was given when the same operation came before; None if it never did.

        Raises:
            SequenceError: an older holder sends it, its number was used for something else, or its answer is no
                longer kept.
        """
        if incarnation != self.incarnation:
            raise SequenceError(
                f"operation {seq} comes from incarnation {incarnation} of this policy, and "
                f"incarnation {self.incarnation} holds it now: load the policy again"
            )
        promise = self.promises.get((incarnation, seq))
        if promise is not None:
            if promise.digest != (said if isinstance(said, str) else said()):
                raise SequenceError(f"operation {seq} was sent before with different contents: use the next number")
            return promise
        if seq < self.next_seq or (incarnation, seq) in self.written.used:
            raise SequenceError(f"the answer of operation {seq} is no longer kept")
        return None

    def take_in(self, seq: int, promise: Promise, call: Callable[[], Call]) -> list[Due]:
        """Add an operation; returns those whose turn it is now. One whose predecessors have not come waits for them."""
        self.promises[self.incarnation, seq] = promise
        self._waiting[seq] = Due(promise, call)
        due = []
        while self.next_seq in self._waiting or (self.incarnation, self.next_seq) in self.written.used:
            if self.next_seq in self._waiting:
                due.append(self._waiting.pop(self.next_seq))
            self.next_seq += 1
        return due

    def awaits(self, seq: int, call: Call) -> bool:
        """Whether it is the number that is due, and others that have come wait for it, or all that the policy holds."""
        return seq == self.next_seq and (bool(self._waiting) or (isinstance(call, Close) and not self._is_closing()))

    def check_near(self, seq: int) -> None:
        """Refuse a number that is far from being due: each one that is used out of its turn is remembered until then.

        Raises:
            BusyError: it is.
        """
        if seq > self.next_seq + MOST_AHEAD:
            raise BusyError(
                f"operation {seq} is more than {MOST_AHEAD} ahead of {self.next_seq}, which is due: send that first",
                AHEAD_AGAIN_S,
            )

    def _is_closing(self) -> bool:
        return any(promise.kind == "close" and not promise.done for promise in self.promises.values())

    def take_up(self, incarnation: int, next_seq: int, version: int) -> None:
        """Go on where an earlier process stood."""
        self.incarnation, self.next_seq, self.version = incarnation, next_seq, version

    def out_of_turn(self) -> dict[Order, Promise]:
        """Operations before which others are missing."""
        return {(self.incarnation, seq): due.promise for seq, due in self._waiting.items()}

    def answered(self, before: Order) -> bool:
        """Whether everything before that operation has its answer."""
        return self.opening.done and not self.unanswered(before)

    def unanswered(self, before: Order) -> list[Promise]:
        """Operations before that one which have no answer."""
        return [each for order, each in self.promises.items() if order < before and not each.done]

    def take_from(self, source: str, order: Order) -> None:
        """Note what an operation takes up."""
        self.written.sources[source] = max(order, self.written.sources.get(source, OPENING))

    def hangs_on(self, source: str) -> bool:
        """Whether it could only be made again with what lies there: no snapshot holds yet what it took from it."""
        order, written = self.written.sources.get(source), self.written
        return order is not None and not self.closed and not (written.snapshots and order < written.begin)

    def fence(self, incarnation: int) -> list[Promise]:
        """Hand the policy to the next holder; returns operations of the last one whose turn now never comes."""
        stranded = [due.promise for due in self._waiting.values()]
        self.incarnation, self.next_seq, self._waiting = incarnation, 0, {}
        return stranded

    def forget(self, promise: Promise) -> None:
        """Its answer is not kept any longer."""
        self.promises.pop(order_of(promise.id), None)

    def note(self, promise: Promise, answer: object) -> None:
        """What an answer says of the policy."""
        failed = isinstance(answer, BaseException)
        if promise is not self.opening:
            self._use_up(order_of(promise.id))
        never_made = failed and promise is self.opening
        if never_made or (promise.kind == "close" and not isinstance(answer, CancelledError)):
            self.closed = True
        elif not failed:
            self.version = max(self.version, _version(answer, self.version))  # a save is told later than steps

    def _use_up(self, order: Order) -> None:
        """It was answered: if it waits for others, its number is stepped over."""
        incarnation, seq = order
        if incarnation == self.incarnation and self._waiting.pop(seq, None) is not None:
            self.written.used.add(order)
            self.written.tail.pop(order, None)


def origin(call: Create | Load) -> str:
    """What a policy begins from: a model, or a checkpoint's folder."""
    return call.checkpoint if isinstance(call, Load) else str(call.spec.model)


def never_due(promise: Promise) -> FettleError:
    """The answer of an operation whose predecessors never came."""
    return SequenceError(f"operation {promise.id} never came its turn: a newer holder has taken the policy")


def _version(answer: object, before: int) -> int:
    if isinstance(answer, int):
        return answer
    found = getattr(answer, "policy_version", before)
    return found if isinstance(found, int) else before


def policy_record(log: OpLog, pins: Iterable[Promise]) -> Tree:
    """How a policy stands, and where it is written down."""
    snapshots = [[*each.before, each.folder, list(each.held)] for each in log.written.snapshots]
    return {
        "record": "policy",
        "policy": log.name,
        "tenant": log.tenant,
        "call": np.frombuffer(packed(call_tree(log.call)), np.uint8),
        "opened": result_tree(log.opening.answer) if log.opening.done else None,
        "seconds": log.opening.seconds,
        "at": log.opening.answered_at,
        "acknowledged": log.opening.acknowledged,
        "incarnation": log.incarnation,
        "next_seq": log.next_seq,
        "version": log.version,
        "closed": log.closed,
        "parked": log.written.parked,
        "snapshots": snapshots,
        "used": [list(order) for order in sorted(log.written.used)],
        "pins": [[pin.id, pin.answer] for pin in pins if pin.done],
    }
