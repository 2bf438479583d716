"""A policy made again from what is written of it: a snapshot, and the operations after it once more."""

import itertools
import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from fettle.broker.calls import carried_out_again
from fettle.broker.journal import Journal, Place
from fettle.broker.oplog import OpLog
from fettle.broker.past import Past, PastAnswer, PastCall, figures
from fettle.broker.pins import Pins
from fettle.broker.promises import order_of
from fettle.broker.written import Order, Snapshot, call_in, following
from fettle.calls import Call
from fettle.engine.base import Backend
from fettle.errors import FettleError, StorageError
from fettle.frames import result_tree

logger = logging.getLogger(__name__)

FOLDER = "snapshots"
"""Within the journal's."""

WITHOUT_EFFECT = frozenset({"forward", "save"})
"""What an answer was given to need not be done again, for nothing in the policy hangs on it."""


class Revival:
    """What it gives is work for the worker's thread."""

    def __init__(self, journal: Journal, backend: Backend, pins: Pins) -> None:
        self._journal = journal
        self._backend = backend
        self._pins = pins

    def path(self, log: OpLog, snapshot: Snapshot) -> Path:
        """Where a snapshot lies."""
        return self._journal.folder / FOLDER / log.name / snapshot.folder

    def taking_back(self, log: OpLog, past: Callable[[], Past]) -> Callable[[], float]:
        """The work of taking a policy back from the newest snapshot that can be read, without pins let go since.

        Where that is an older one, the operations up to the newest are done again by what ``past`` says of them. It
        comes to the seconds that this took.
        """
        kept = log.written.snapshots
        ways = [self._revived(log, snapshot) for snapshot in kept]

        def work() -> float:
            newest = len(kept) - 1
            while True:
                try:
                    ways[newest]()
                    break
                except Exception as error:
                    if newest:
                        name = kept[newest].folder
                        logger.warning("%s: %s cannot be read (%s): an older one is", log.name, name, error)
                        newest -= 1
                        continue
                    raise
            seconds = 0.0
            if kept[newest] is not kept[-1]:
                seconds = self._between(log, past(), kept[newest].before, kept[-1].before)
                log.written.snapshots = kept[: newest + 1]
            log.written.reached = kept[-1].before
            return seconds

        return work

    def has_effect(self, operation: PastCall, answer: PastAnswer) -> bool:
        """Whether something in the policy hangs on it."""
        said = operation.said
        unneeded = said["kind"] in WITHOUT_EFFECT or (said["kind"] == "pin" and said["id"] not in self._pins)
        return not (answer.failed or unneeded)

    def again(self, log: OpLog, operation: PastCall, answer: PastAnswer) -> float:
        """On the worker's thread: an operation whose answer is known, once more; the seconds that it took."""
        id, call = operation.said["id"], self.call_at(operation.place)
        started = time.perf_counter()
        try:
            result = carried_out_again(self._backend, log.name, id, call)
        except FettleError as error:
            raise StorageError(f"operation {id} cannot be repeated: {error.message}") from error
        seconds = time.perf_counter() - started
        log.written.reached = following(order_of(id))
        found, before = figures(result_tree(result)), figures(answer.result)
        if repr(found) != repr(before):  # in which a NaN is like itself
            logger.error(
                "operation %s came to %s when it was repeated, and to %s before: was it another machine, or another "
                "number of threads?",
                id,
                found,
                before,
            )
        return seconds

    def call_at(self, place: Place) -> Call:
        """The call of a record."""
        return call_in(self._journal.read(place))

    def _revived(self, log: OpLog, snapshot: Snapshot) -> Callable[[], None]:
        folder, gone = self.path(log, snapshot), [pin for pin in snapshot.held if pin not in self._pins]

        def work() -> None:
            self._backend.revive(log.name, folder)
            for pin in gone:
                self._backend.unpin(pin)

        return work

    def _between(self, log: OpLog, past: Past, begin: Order, end: Order) -> float:
        """Operations that were in a snapshot which cannot be read."""
        operations = past.operations.get(log.name, {})
        seconds = 0.0
        for order in in_turn({*operations, *log.written.used}, begin):
            if order not in operations or order >= end:
                continue
            answer = past.answer(operations[order])
            if answer is None:
                raise StorageError(f"the journal has no answer to {operations[order].said['id']}")
            if self.has_effect(operations[order], answer):
                seconds += self.again(log, operations[order], answer)
        return seconds


def in_turn(numbers: Iterable[Order], begin: Order) -> list[Order]:
    """Numbers from ``begin`` on in their order, without those before which others are missing."""
    later = sorted(order for order in numbers if order >= begin)
    due: list[Order] = []
    for incarnation, own in itertools.groupby(later, key=lambda order: order[0]):
        expected = begin[1] if incarnation == begin[0] else 0
        for order in own:
            if order[1] == expected:
                due.append(order)
                expected += 1
    return due
