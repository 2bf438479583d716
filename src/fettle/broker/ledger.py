"""Every promise of a broker, from when its call is let in until its answer is no longer kept."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Set
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from fettle.broker.admission import Admission
from fettle.broker.answers import Answers
from fettle.broker.journal import Journal
from fettle.broker.promises import Keeping, Promise
from fettle.broker.written import answer_record
from fettle.config import JournalSettings
from fettle.errors import NotFoundError, StorageError
from fettle.frames import Tree

logger = logging.getLogger(__name__)

SWEEPS = 16
"""How often in the time for which answers are kept those that are too old are looked for."""

TOGETHER = 64
"""Acknowledgements that are written down as one record."""

AGAIN = 0.2
"""Seconds after which answers are written down again where the disk was full."""


class Asked(NamedTuple):
    """What is known of a call before it is let in."""

    id: str
    policy: str
    tenant: str
    kind: str
    tokens: int
    nbytes: int
    said: Callable[[], str] | str


class Ledger:
    """Lets calls in, settles their promises, and forgets them in time; called on the event loop."""

    def __init__(
        self,
        settings: JournalSettings,
        admission: Admission,
        journal: Journal | None,
        *,
        cancelled: Callable[[Promise], bool],
        settled: Callable[[Promise, object], None],
        forgotten: Callable[[Promise], None],
    ) -> None:
        self._settings = settings
        self._admission = admission
        self._journal = journal
        self._settled = settled
        self._forgotten = forgotten
        self._promises: dict[str, Promise] = {}
        self._under_way: dict[Promise, Asked | None] = {}
        self._taken_up: list[Promise] = []
        self._told: list[Callable[[Promise], object]] = []
        self._answers = Answers(settings, self._forget)
        self._acknowledgements: list[str] = []
        self._unwritten: dict[str, dict[Promise, object]] = {}
        """Answers that could not be written down yet: of each policy, and of draws, in the order in which they came."""
        self._keeping = Keeping(self._durable, cancelled, self._acknowledged)
        self._swept = time.monotonic()
        self.taken = 0
        """Calls so far."""

    @property
    def under_way(self) -> int:
        """How many are not done."""
        return len(self._under_way)

    @property
    def answers_bytes(self) -> int:
        """Memory of the answers that are kept."""
        return self._answers.nbytes

    def known(self, id: str) -> Promise:
        """The promise of that id.

        Raises:
            NotFoundError: it was acknowledged, grew too old, or was never given.
        """
        if id not in self._promises:
            raise NotFoundError(f"there is no promise {id!r} here: it was acknowledged, it expired, or was never given")
        return self._promises[id]

    def find(self, id: str) -> Promise | None:
        """The same, or None."""
        return self._promises.get(id)

    def promises(self) -> list[Promise]:
        """Those that are under way or kept."""
        return list(self._promises.values())

    def promised(self, asked: Asked) -> Promise:
        """A promise that nobody has been given yet."""
        return Promise(
            asked.id,
            policy=asked.policy,
            tenant=asked.tenant,
            kind=asked.kind,
            tokens=asked.tokens,
            said=asked.said,
            keeping=self._keeping,
        )

    def take_in(
        self, asked: Asked, record: Callable[[Promise], Tree], *, early: bool = False, awaited: bool = False
    ) -> Promise:
        """Let a call in (see ``Admission.admit``), and write it down.

        Raises:
            BusyError: too much waits already.
            StorageError: it cannot be written down.
        """
        drawing = not asked.policy
        tokens, nbytes = asked.tokens, asked.nbytes
        self._admission.admit(asked.tenant, tokens=tokens, nbytes=nbytes, drawing=drawing, early=early, awaited=awaited)
        promise = self.promised(asked)
        try:
            self.write(promise, record)
        except StorageError:
            self._admission.release(asked.tenant, tokens=tokens, nbytes=nbytes, drawing=drawing)
            raise
        self._begin(promise, asked)
        return promise

    def take_up(self, promise: Promise) -> None:
        """A call that was let in before the broker was made anew, and is not let in again."""
        self._taken_up.append(promise)
        self._begin(promise, None)

    def keep(self, promise: Promise, *, age: float) -> None:
        """A promise that was settled before the broker was made anew, ``age`` seconds before."""
        self._promises[promise.id] = promise
        self._answers.keep(promise, age=age)

    def when_answered(self, told: Callable[[Promise], object]) -> None:
        """See ``Broker.when_answered``."""
        self._told.append(told)
        for promise in dict.fromkeys([*self._taken_up, *self._waited_for()]):
            promise.when_done(told)

    def answer(self, promise: Promise, answer: object) -> None:
        """Settle a promise with a result or an error, once that is written down."""
        if promise.done or promise not in self._under_way:
            return
        if (asked := self._under_way.pop(promise)) is not None:
            self._admission.release(asked.tenant, tokens=asked.tokens, nbytes=asked.nbytes, drawing=not asked.policy)
        promise.answered_at = time.time()
        self._settle(promise, answer)
        self._sweep()

    def write(self, promise: Promise, record: Callable[[Promise], Tree]) -> None:
        """Write down what is new of a promise.

        Raises:
            StorageError: it cannot be.
        """
        if self._journal is not None:
            promise.place = self._journal.append(record(promise))
            promise.position = self._journal.position

    def flush(self) -> None:
        """Write down which answers were acknowledged; where that fails they are kept longer."""
        if self._journal is None or not self._acknowledgements:
            return
        with suppress(StorageError):
            self._journal.append({"record": "acknowledge", "ids": self._acknowledgements})
            self._acknowledgements = []

    async def drained(self, out_of_turn: Callable[[], Set[Promise]]) -> None:
        """Return once nothing is under way, but for what is withheld, and what others must come before."""
        while waiting := [each for each in set(self._waited_for()) - out_of_turn() if each.withheld is None]:
            await asyncio.wait([asyncio.ensure_future(promise.settled()) for promise in waiting])

    def _waited_for(self) -> Iterator[Promise]:
        """What has no answer yet."""
        yield from self._under_way
        for unwritten in self._unwritten.values():
            yield from unwritten

    def _begin(self, promise: Promise, asked: Asked | None) -> None:
        self._promises[promise.id] = promise
        self._under_way[promise] = asked
        self.taken += 1
        for told in self._told:
            promise.when_done(told)

    def unwritten(self, promise: Promise) -> object:
        """Its answer, if there is one that could not be written down yet."""
        return self._unwritten.get(promise.policy, {}).get(promise)

    def _settle(self, promise: Promise, answer: object) -> None:
        if promise.policy in self._unwritten:  # behind which it is put, since answers say how the policy stands
            self._unwritten[promise.policy][promise] = answer
            return
        try:
            self.write(promise, partial(answer_record, answer=answer))
        except StorageError as error:
            if self._journal is not None and self._journal.failed is not None:
                # What it comes to is known after a restart, when it may be carried out once more.
                promise.withhold(error)
            else:
                self._try_again(promise, answer)
            return
        promise.settle(answer)
        if promise.acknowledged:
            self._forget(promise)
        else:
            promise.said = promise.digest  # which lets go of the call itself
            self._answers.keep(promise)
        self._settled(promise, answer)

    def _try_again(self, promise: Promise, answer: object) -> None:
        """Nobody is told what could not be written down: it is, once there is room again."""
        if not self._unwritten:
            logger.warning("answers cannot be written down, and wait until they can be")
            asyncio.get_running_loop().call_later(AGAIN, self._write_unwritten)
        self._unwritten[promise.policy] = {promise: answer}

    def _write_unwritten(self) -> None:
        unwritten, self._unwritten = self._unwritten, {}
        for answers in unwritten.values():
            for promise, answer in answers.items():
                self._settle(promise, answer)

    async def _durable(self, promise: Promise) -> None:
        if self._journal is not None:
            await self._journal.durable(promise.position)

    def _acknowledged(self, promise: Promise) -> None:
        if promise.done and self._answers.acknowledge(promise) and self._journal is not None:
            self._acknowledgements.append(promise.id)
            if len(self._acknowledgements) >= TOGETHER:
                self.flush()

    def _forget(self, promise: Promise) -> None:
        if self._promises.get(promise.id) is promise:
            del self._promises[promise.id]
        self._forgotten(promise)

    def _sweep(self) -> None:
        now = time.monotonic()
        if now - self._swept > self._settings.answers_seconds / SWEEPS:
            self._swept = now
            self._answers.expire()
