"""Which files of a journal can go, and what of them must be carried over first."""

from collections.abc import Callable, Mapping
from functools import partial

from fettle.broker.journal import Journal
from fettle.broker.ledger import Ledger
from fettle.broker.oplog import OpLog
from fettle.broker.promises import Promise
from fettle.broker.written import answer_record
from fettle.frames import Tree

FILES = 4
"""More files than these are not kept for operations that no snapshot holds yet: one is then taken."""


def compact(journal: Journal, ledger: Ledger, logs: Mapping[str, OpLog], say: Callable[[OpLog], None]) -> list[OpLog]:
    """Remove the oldest files, as far as can be; returns policies of which a snapshot would let more go.

    Raises:
        StorageError: what is still wanted cannot be carried over.
    """
    ledger.flush()
    while len(journal.segments) > 1:
        oldest = journal.segments[0]
        needing = [log for log in logs.values() if _needs(log, oldest)]
        if needing:
            return needing if len(journal.segments) > FILES else []
        _carry_over(journal, ledger, logs, say, oldest)
        journal.remove(oldest)
    return []


def _needs(log: OpLog, segment: int) -> bool:
    """Whether operations of the policy lie there that would have to be repeated; those out of turn can be moved."""
    if log.closed:
        return False
    waiting = log.out_of_turn()
    return any(place.segment <= segment for order, place in log.written.tail.items() if order not in waiting)


def _carry_over(
    journal: Journal, ledger: Ledger, logs: Mapping[str, OpLog], say: Callable[[OpLog], None], segment: int
) -> None:
    for promise in ledger.promises():
        log = logs.get(promise.policy)
        if promise.place.segment > segment or (log is not None and promise is log.opening):
            continue
        said = partial(answer_record, answer=promise.answer) if promise.done else partial(_again, journal)
        ledger.write(promise, said)
    for log in logs.values():
        for order, promise in log.out_of_turn().items():
            log.written.tail[order] = promise.place
        if log.written.place.segment <= segment:
            say(log)


def _again(journal: Journal, promise: Promise) -> Tree:
    """The record of a call that is not answered yet, as it was written."""
    return journal.read(promise.place)
