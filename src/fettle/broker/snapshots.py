"""When a policy is written down whole, and when it is nowhere but on the disk."""

import asyncio
import logging
import shutil
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from fettle.broker.journal import Journal, entries, make
from fettle.broker.oplog import OpLog
from fettle.broker.past import Past, past_of
from fettle.broker.pins import Pins
from fettle.broker.promises import Promise
from fettle.broker.revival import FOLDER, WITHOUT_EFFECT, Revival
from fettle.broker.schedule import Outcome, Worker
from fettle.broker.written import Order, Snapshot
from fettle.engine.base import Backend
from fettle.errors import FettleError, StorageError

logger = logging.getLogger(__name__)

TAKEN_AT_ONCE = frozenset({"create", "load", "restore"})
"""Calls that speak of files which may be gone when they are to be repeated."""

WORTH = 10
"""How many times longer than it takes to write a policy down it has computed before that is done."""

TAKEN_AGAIN = 10.0
"""Seconds after which it is tried once more to write a policy down."""

REVIVED_AGAIN = 5.0
"""Seconds after which it is tried once more to take a policy back for which operations wait."""


class AwayError(StorageError):
    """A policy is nowhere but on the disk, and cannot be taken back at present."""


class Snapshots:
    """Written by the worker in the policy's own order. ``say`` writes into the journal how a policy stands."""

    def __init__(
        self,
        journal: Journal,
        backend: Backend,
        worker: Worker,
        pins: Pins,
        say: Callable[[OpLog], None],
    ) -> None:
        self._folder = journal.folder / FOLDER
        self._settings = journal.settings
        self._journal = journal
        self._backend = backend
        self._worker = worker
        self._pins = pins
        self._say = say
        self.revival = Revival(journal, backend, pins)
        self._owed: dict[OpLog, float] = {}
        """Seconds of computing since the newest snapshot of each that has worked: what recovery repeats."""
        self.taken: Callable[[], None] = lambda: None
        """Called when one was taken."""
        self.back: Callable[[OpLog], None] = lambda log: None
        """Called when a policy is there again that could not be taken back before."""
        self.absent: dict[str, FettleError] = {}
        """Policies that could not be taken back; known to the worker's thread."""

    def worked(self, log: OpLog, promise: Promise, answer: object) -> None:
        """An operation was answered."""
        if log.closed:
            return
        log.written.since += 1
        failed = isinstance(answer, BaseException)
        if not failed and promise.kind not in WITHOUT_EFFECT:
            self.computed(log, promise.seconds)
        whole = promise.kind in TAKEN_AT_ONCE and not failed
        if whole or log.written.since >= self._settings.snapshot_operations:
            self.take(log, soon=True)

    def computed(self, log: OpLog, seconds: float) -> None:
        """So much more would be repeated. Once that is too much, whoever has most of it is written down."""
        self._owed[log] = self._owed.get(log, 0.0) + seconds
        if sum(self._owed.values()) < self._settings.snapshot_seconds:
            return
        worth = [each for each, owed in self._owed.items() if self._is_worth(each, owed)]
        if worth:
            self.take(max(worth, key=self._owed.__getitem__), soon=True)

    def take(self, log: OpLog, *, soon: bool = False) -> "asyncio.Task[None] | None":
        """Have it written down once what was submitted so far is done; None where that was done already.

        ``soon``: as it then is, before what waits is carried out.
        """
        written = log.written
        if written.timer is not None:
            written.timer.cancel()
            written.timer = None
        if written.taking is not None:
            written.again = True
            return written.taking
        before, owed = (log.incarnation, log.next_seq), self._owed.pop(log, 0.0)
        written.since = 0
        absent = written.parked or written.away or log.closed or log.lost is not None
        if absent or self.holds(log, before):
            return None
        held = tuple(pin.promise.id for pin in self._pins.of(log.name))
        work = partial(self._write, log, None if soon else before, held)
        done = self._worker.start(work, flow=log.tenant, first=soon)
        written.taking = asyncio.get_running_loop().create_task(self._follow(log, done, owed))
        return written.taking

    def holds(self, log: OpLog, before: Order) -> bool:
        """Whether everything before that operation is on the disk."""
        resting = log.written.parked and not log.held
        return resting or (bool(log.written.snapshots) and log.written.begin >= before)

    async def whole(self, log: OpLog) -> None:
        """Have everything that was submitted so far, and whose turn has come, written down on the disk.

        Raises:
            StorageError: it could not be; what the policy was made of is needed further.
        """
        written, before = log.written, (log.incarnation, log.next_seq)
        if written.taking is not None:
            await asyncio.shield(written.taking)
        if not self.holds(log, before) and (taking := self.take(log)) is not None:
            await asyncio.shield(taking)
        if not (log.closed or self.holds(log, before)):
            raise StorageError(
                f"the policy {log.name} could not be written down: see in the log why, and send this again"
            )
        await self._journal.durable(self._journal.position)

    async def park(self, log: OpLog, busy: Callable[[], "asyncio.Future[Any] | None"]) -> None:
        """Write it down, and give its memory back, unless it is wanted again meanwhile."""
        while (waiting := busy()) is not None:
            await waiting
        await self.whole(log)
        if (
            log.closed
            or log.written.parked
            or busy() is not None
            or not self.holds(log, (log.incarnation, log.next_seq))
        ):
            return
        log.written.parked = True
        try:
            self._say(log)
        except StorageError:
            log.written.parked = False
            raise
        await self._worker.run(lambda: self._backend.close_policy(log.name), flow=log.tenant)

    def present(self, log: OpLog) -> "asyncio.Future[None] | None":
        """See to it that a policy is on the backend: a future of that where it is not yet.

        What is queued for the worker after this finds it there.
        """
        written = log.written
        if not written.parked:
            return written.reviving
        written.parked = False
        written.reviving = self._revive(log)
        written.reviving.add_done_callback(asyncio.Future.exception)  # who does not wait for it finds it in the log
        return written.reviving

    def _revive(self, log: OpLog) -> "asyncio.Future[None]":
        """Take a policy back that was parked."""
        take_back = self.revival.taking_back(log, self._past)

        def work() -> None:
            try:
                take_back()
            except Exception as error:  # whatever it is, what was acknowledged must not be carried out without it
                away = AwayError(f"the policy {log.name} cannot be taken back from the disk at present: {_why(error)}")
                self.absent[log.name] = away
                raise away from error
            self.absent.pop(log.name, None)

        return self._worker.start(work, flow=log.tenant, noted=partial(self._revived, log))

    def give_up(self, log: OpLog, error: Exception) -> StorageError:
        """On the worker's thread: a policy cannot be taken up from an earlier process, and is left as it is written."""
        lost = StorageError(
            f"the policy {log.name} cannot be taken up again, and stays as it is written: {_why(error)}: "
            "mend that, and start again"
        )
        logger.error("%s", lost.message, exc_info=error)
        self.absent[log.name] = lost
        with suppress(FettleError):  # of which there may be a part
            self._backend.close_policy(log.name)
        return lost

    def thin(self, log: OpLog) -> bool:
        """Keep the newest only; whether there were others.

        Raises:
            StorageError: it cannot be said; all is as it was.
        """
        if len(log.written.snapshots) < 2:
            return False
        gone = [self.revival.path(log, each) for each in self._keep(log, log.written.snapshots[-1:])]
        asyncio.get_running_loop().run_in_executor(None, _remove_all, gone)
        return True

    def sweep(self, logs: Iterable[OpLog]) -> None:
        """Remove what nothing refers to."""
        known = {log.name: {each.folder for each in log.written.snapshots} for log in logs if not log.closed}
        for folder in self._folder.glob("*/*"):
            if folder.name not in known.get(folder.parent.name, ()):
                shutil.rmtree(folder, ignore_errors=True)

    def forget(self, log: OpLog) -> None:
        """A policy was closed."""
        if log.written.timer is not None:
            log.written.timer.cancel()
            log.written.timer = None
        self._owed.pop(log, None)
        self._worker.post(partial(shutil.rmtree, self._folder / log.name, ignore_errors=True), flow=log.tenant)

    def _is_worth(self, log: OpLog, owed: float) -> bool:
        """Whether it has computed long beside the time that writing it down takes, and is not being written down."""
        written = log.written
        return written.taking is None and written.timer is None and owed > WORTH * written.took

    def _write(self, log: OpLog, before: Order | None, held: tuple[str, ...]) -> Snapshot | None:
        """On the worker's thread: a snapshot of what was carried out; None where the newest holds that."""
        written = log.written
        before = before or written.reached
        if written.snapshots and written.begin >= before:
            return None
        snapshot = Snapshot(before, f"{before[0]}-{before[1]}", held)
        folder, started = self.revival.path(log, snapshot), time.perf_counter()
        shutil.rmtree(folder, ignore_errors=True)  # of an attempt that nothing refers to
        make(folder.parent)
        self._backend.snapshot(log.name, folder)
        written.took = time.perf_counter() - started
        return snapshot

    def _past(self) -> Past:
        return past_of(entries(self._journal.folder))

    async def _follow(self, log: OpLog, done: "asyncio.Future[Snapshot | None]", owed: float) -> None:
        """See a snapshot to its end."""
        written = log.written
        snapshot = None
        try:
            snapshot = await done
            if log.closed:
                return
            if snapshot is not None:
                await self._taken(log, snapshot)
        except Exception as error:  # noqa: BLE001  whatever it is, work goes on, and is written down later
            if not log.closed and self._journal.failed is None:
                logger.warning("the policy %s could not be written down: %s", log.name, error)
                if snapshot is not None and snapshot not in log.written.snapshots:
                    await asyncio.to_thread(shutil.rmtree, self.revival.path(log, snapshot), True)
                self._owed[log] = self._owed.get(log, 0.0) + owed
                written.timer = asyncio.get_running_loop().call_later(TAKEN_AGAIN, self.take, log)
        finally:
            written.taking = None
        if written.again:
            written.again = False
            self.take(log, soon=True)
        self.taken()

    async def _taken(self, log: OpLog, snapshot: Snapshot) -> None:
        """Have recovery go on from it.

        Raises:
            StorageError: it cannot.
        """
        saves = [each for each in log.unanswered(snapshot.before) if each.kind == "save" and each.withheld is None]
        await asyncio.gather(*(each.settled() for each in saves), return_exceptions=True)
        if not log.answered(snapshot.before):
            raise StorageError("answers to what is in it are not written down yet")
        gone = self._keep(log, [*log.written.snapshots, snapshot][-self._settings.snapshots_kept :])
        await self._journal.durable(self._journal.position)
        for each in gone:
            await asyncio.to_thread(shutil.rmtree, self.revival.path(log, each), True)

    def _keep(self, log: OpLog, snapshots: list[Snapshot]) -> list[Snapshot]:
        """Say which there are; returns those that are not kept any longer.

        Raises:
            StorageError: it cannot be said; all is as it was.
        """
        written = log.written
        before, written.snapshots = written.snapshots, snapshots
        try:
            self._say(log)
        except StorageError:
            written.snapshots = before
            raise
        first = snapshots[0].before
        written.tail = {order: place for order, place in written.tail.items() if order >= first}
        written.used = {order for order in written.used if order >= first}
        written.sources = {source: order for source, order in written.sources.items() if order >= first}
        return [each for each in before if each not in snapshots]

    def _revived(self, log: OpLog, outcome: Outcome) -> None:
        log.written.reviving = None
        if outcome.error is not None:
            log.written.parked = log.written.away = True
            logger.error("%s", outcome.error)
            asyncio.get_running_loop().call_later(REVIVED_AGAIN, self._try_again, log)
        elif log.written.away:
            log.written.away = False
            self.back(log)

    def _try_again(self, log: OpLog) -> None:
        if log.held and not self._worker.closed:
            self.present(log)


def _remove_all(folders: Iterable[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _why(error: Exception) -> str:
    return error.message if isinstance(error, FettleError) else f"{type(error).__name__}: {error}"
