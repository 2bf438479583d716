"""Where operations of all policies are taken in, carried out and answered."""

import asyncio
import logging
import re
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from fettle.broker.admission import Admission
from fettle.broker.calls import carried_out, carried_out_again
from fettle.broker.compaction import compact
from fettle.broker.journal import Journal
from fettle.broker.ledger import Asked, Ledger
from fettle.broker.oplog import Due, OpLog, never_due, policy_record
from fettle.broker.pins import Pins
from fettle.broker.promises import Promise, bytes_of, digest_of, open_id, operation_id, order_of, words_of
from fettle.broker.schedule import Outcome, Worker
from fettle.broker.snapshots import AwayError, Snapshots
from fettle.broker.written import NOWHERE, body_of, following, opening_record, operation_record
from fettle.calls import Call, Create, Load, Restore
from fettle.config import JournalSettings
from fettle.engine.base import Backend
from fettle.errors import CancelledError, ConfigError, NotFoundError, SequenceError, StorageError

logger = logging.getLogger(__name__)

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,199}")
"""A policy's name, which is also a folder's."""


class Desk:
    """Called on the event loop; what the worker is given runs on its thread."""

    def __init__(
        self,
        backend: Backend,
        worker: Worker,
        admission: Admission,
        *,
        journal: Journal | None,
        unpin: Callable[[str], None],
        stop_drawing: Callable[[Promise], bool],
    ) -> None:
        self._backend = backend
        self._worker = worker
        self._journal = journal
        self._stop_drawing = stop_drawing
        self.logs: dict[str, OpLog] = {}
        self.pins = Pins(unpin, self._present)
        settings = JournalSettings() if journal is None else journal.settings
        self.ledger = Ledger(
            settings,
            admission,
            journal,
            cancelled=self._cancelled,
            settled=self._settled,
            forgotten=self._forgotten,
        )
        self.snapshots: Snapshots | None = None
        if journal is not None:
            self.snapshots = Snapshots(journal, backend, worker, self.pins, self.say)
            self.snapshots.back = self._go_on

    def log(self, policy: str) -> OpLog:
        """The op log of a policy that is open.

        Raises:
            NotFoundError: there is no such policy.
            StorageError: it could not be taken up from an earlier process.
        """
        log = self.logs.get(policy)
        if log is None or log.closed:
            raise NotFoundError(f"there is no policy {policy!r} here: it was closed, or never made")
        if log.lost is not None:
            raise log.lost
        return log

    def open(self, name: str, call: Create | Load, tenant: str) -> Promise:
        """See ``Broker.open``."""
        if (log := self.logs.get(name)) is not None:
            if log.call != call:
                raise SequenceError(f"the policy {name} was opened before by another call: take another name")
            return log.opening
        if not NAME.fullmatch(name):
            raise ConfigError(f"a policy cannot be called {name!r}: use letters, digits, and _ . : - within")
        asked, body = self._asked(open_id(name), name, tenant, call, None)
        promise = self.ledger.take_in(asked, partial(opening_record, body=body))
        self.logs[name] = log = OpLog(name, promise, call, tenant=tenant)
        log.written.place = promise.place
        self.carry_out(log, Due(promise, lambda: call))
        return promise

    def submit(self, policy: str, incarnation: int, seq: int, call: Call, digest: str | None) -> Promise:
        """See ``Broker.submit``."""
        log = self.logs.get(policy) or self.log(policy)
        known = log.known(incarnation, seq, digest or digest_of(call))
        if known is not None:
            return known
        self.log(policy)
        log.check_near(seq)
        asked, body = self._asked(operation_id(policy, incarnation, seq), policy, log.tenant, call, digest)
        order = (incarnation, seq)
        record = partial(operation_record, order=order, body=body)
        promise = self.ledger.take_in(asked, record, early=seq > log.next_seq, awaited=log.awaits(seq, call))
        if self._journal is not None:
            log.written.tail[order] = promise.place
        if isinstance(call, Restore):
            log.take_from(call.checkpoint, order)
        self.take_in(log, seq, promise, lambda: call)
        return promise

    def take_in(self, log: OpLog, seq: int, promise: Promise, call: Callable[[], Call]) -> None:
        """Queue an operation whose promise was given."""
        if promise.kind == "pin":
            self.pins.add(promise)
        for due in log.take_in(seq, promise, call):
            self.carry_out(log, due)

    def attach(self, policy: str) -> int:
        """See ``Broker.attach``."""
        log = self.log(policy)
        incarnation = log.incarnation + 1
        if self._journal is not None:
            self._journal.append({"record": "attach", "policy": policy, "incarnation": incarnation})
        for stranded in log.fence(incarnation):
            self.ledger.answer(stranded, never_due(stranded))
        return incarnation

    def release(self, pin: str) -> None:
        """See ``Broker.release``."""
        if self._journal is not None and pin in self.pins:
            try:
                self._journal.append({"record": "release", "pin": pin})
            except StorageError as error:
                logger.warning("that %s was released is not written down: %s", pin, error.message)
        self.pins.release(pin)

    async def park(self, policy: str) -> None:
        """See ``Broker.park``."""
        log = self.log(policy)
        if self.snapshots is None:
            raise ConfigError("a broker without a journal has nowhere to park a policy: give it one")
        await self.snapshots.park(log, lambda: self._busy(log))

    async def written_down(self, policy: str) -> None:
        """See ``Broker.written_down``."""
        log = self.log(policy)
        if self.snapshots is not None:
            await self.snapshots.whole(log)

    async def snapshot_all(self) -> None:
        """See ``Broker.snapshot_all``."""
        await self._all_whole(log for log in self.logs.values() if not log.closed and log.lost is None)

    async def written_down_without(self, source: str) -> None:
        """See ``Broker.written_down_without``."""
        hanging = [log for log in self.logs.values() if log.hangs_on(source)]
        for log in hanging:
            self.log(log.name)
        await self._all_whole(hanging)

    async def _all_whole(self, logs: Iterable[OpLog]) -> None:
        if self.snapshots is not None:
            for error in await asyncio.gather(*map(self.snapshots.whole, logs), return_exceptions=True):
                if error is not None:
                    raise error

    def carry_out(self, log: OpLog, due: Due, *, again: bool = False) -> None:
        """Queue an operation whose turn it is; its promise is settled with what it comes to.

        ``again``: an earlier process may have carried it out already, and was not able to say so.
        """
        promise = due.promise

        def work() -> Any:
            if self.snapshots is not None and log.name in self.snapshots.absent:
                raise self.snapshots.absent[log.name]
            if not promise.taken():
                raise CancelledError(f"operation {promise.id} was cancelled before it began")
            started = time.perf_counter()
            try:
                return self.carried_out(log, promise.id, due.call(), again=again)
            finally:
                promise.seconds = time.perf_counter() - started
                if promise is not log.opening:
                    log.written.reached = following(order_of(promise.id))

        def answered(outcome: Outcome) -> None:
            if log.lost is not None:
                promise.withhold(log.lost)
            elif isinstance(outcome.error, AwayError):
                log.held[order_of(promise.id)] = partial(self.carry_out, log, due, again=again)
            else:
                self._answer(log, promise, outcome.error or outcome.result)

        self._present(log.name)
        if log.written.away:
            log.held[order_of(promise.id)] = partial(self.carry_out, log, due, again=again)
            return
        self._worker.hand(work, answered, flow=log.tenant, cost=max(1, promise.tokens))

    def _answer(self, log: OpLog, promise: Promise, answer: object) -> None:
        """A close comes last: once that is answered, nothing of a policy is carried out again after a restart."""
        earlier = log.unanswered(order_of(promise.id)) if promise.kind == "close" else []
        if not earlier:
            self.ledger.answer(promise, answer)
            return
        saves = asyncio.gather(*(each.settled() for each in earlier), return_exceptions=True)
        saves.add_done_callback(lambda _: self.ledger.answer(promise, answer))

    def _go_on(self, log: OpLog) -> None:
        """A policy is there again that could not be taken back: what waits for that is queued in its order."""
        held, log.held = log.held, {}
        for order in sorted(held):
            held[order]()

    def carried_out(self, log: OpLog, made: str, call: Call, *, again: bool) -> Any:
        """On the worker's thread: what the call comes to."""
        return (carried_out_again if again else carried_out)(self._backend, log.name, made, call)

    def say(self, log: OpLog) -> None:
        """Write down how a policy stands.

        Raises:
            StorageError: it cannot be written down.
        """
        if self._journal is not None:
            log.written.place = self._journal.append(policy_record(log, [p.promise for p in self.pins.of(log.name)]))

    def out_of_turn(self) -> set[Promise]:
        """Operations before which others are missing."""
        return {promise for log in self.logs.values() for promise in log.out_of_turn().values()}

    def compact_from_now_on(self) -> None:
        """Have files of the journal that nothing needs removed: all that was written has been taken up."""
        if self._journal is not None and self.snapshots is not None:
            self._journal.grown = self.snapshots.taken = self.compact

    def compact(self) -> None:
        """Remove files of the journal that nothing needs."""
        if self._journal is None or self.snapshots is None or self._journal.failed is not None:
            return
        try:
            needing = compact(self._journal, self.ledger, self.logs, self.say)
            if sum(self.snapshots.thin(log) for log in needing):
                needing = compact(self._journal, self.ledger, self.logs, self.say)
            for log in needing:
                self.snapshots.take(log)
        except StorageError as error:
            logger.warning("the journal cannot be made smaller: %s", error.message)

    def close(self) -> None:
        """End what is done in time, and the journal."""
        for log in self.logs.values():
            if log.written.timer is not None:
                log.written.timer.cancel()
        if self._journal is not None:
            self.ledger.flush()
            self._journal.close()

    def _asked(self, id: str, policy: str, tenant: str, call: Call, digest: str | None) -> tuple[Asked, bytes]:
        """What is known of a call, and its frame where there is a journal to put it in."""
        kind, tokens = words_of(call)
        if self._journal is None:
            return Asked(id, policy, tenant, kind, tokens, bytes_of(call), digest or digest_of(call)), b""
        body, found = body_of(call)
        return Asked(id, policy, tenant, kind, tokens, bytes_of(call), digest or found), body

    def _settled(self, promise: Promise, answer: object) -> None:
        """An answer was set."""
        if promise.kind == "pin":
            self.pins.settled(promise, failed=isinstance(answer, BaseException))
        log = self.logs.get(promise.policy)
        if log is None:
            return
        log.note(promise, answer)
        if log.closed:
            self.pins.close(log.name)
            if self.snapshots is not None:
                self.snapshots.forget(log)
            self._drop_if_over(log)
        elif self.snapshots is not None:
            self.snapshots.worked(log, promise, answer)

    def _cancelled(self, promise: Promise) -> bool:
        if not isinstance(self.ledger.unwritten(promise), CancelledError):
            if not (promise.taken() if promise.policy else self._stop_drawing(promise)):
                return False
            self.ledger.answer(promise, CancelledError(f"{promise.kind} {promise.id} was cancelled"))
        if not promise.done:
            raise promise.withheld or StorageError(
                f"that {promise.kind} {promise.id} was cancelled cannot be written down yet: ask for it again"
            )
        return True

    def _forgotten(self, promise: Promise) -> None:
        log = self.logs.get(promise.policy)
        if log is not None:
            if promise is not log.opening:
                log.forget(promise)
            self._drop_if_over(log)

    def _drop_if_over(self, log: OpLog) -> None:
        """Forget a policy that is closed and of which nobody can ask anything more."""
        if log.closed and not log.promises and self.ledger.find(log.opening.id) is not log.opening:
            self.logs.pop(log.name, None)
            if self._journal is not None and self._journal.failed is None and log.written.place != NOWHERE:
                try:
                    self._journal.append({"record": "forget", "policy": log.name})
                except StorageError:
                    return  # It is then remembered as closed after a restart, until its answers are too old.

    def _present(self, policy: str) -> "asyncio.Future[None] | None":
        log = self.logs.get(policy)
        if log is not None and log.lost is not None:
            raise log.lost
        return None if self.snapshots is None or log is None else self.snapshots.present(log)

    def _busy(self, log: OpLog) -> "asyncio.Future[Any] | None":
        """A future of what is under way with a policy; None where nothing is."""
        out_of_turn = set(log.out_of_turn().values())
        here = [each for each in (log.opening, *log.promises.values()) if each not in out_of_turn]
        if self._journal is not None and self._journal.failed is not None:
            raise self._journal.failed
        under_way = [promise.settled() for promise in here if not promise.done]
        if under_way:
            return asyncio.gather(*under_way)
        return self.pins.next_leave() if self.pins.in_use(log.name) else None
