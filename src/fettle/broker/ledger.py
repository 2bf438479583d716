"""Every promise of a broker, from when its call is let in until its answer is no longer kept."""

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple

from fettle.broker.admission import Admission
from fettle.broker.answers import Answers
from fettle.broker.promises import Keeping, Promise
from fettle.config import JournalSettings
from fettle.errors import NotFoundError

SWEEPS = 16
"""How often in the time for which answers are kept those that are too old are looked for."""


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
        *,
        cancelled: Callable[[Promise], bool],
        forgotten: Callable[[Promise], None],
    ) -> None:
        self._settings = settings
        self._admission = admission
        self._forgotten = forgotten
        self._promises: dict[str, Promise] = {}
        self._under_way: dict[Promise, Asked] = {}
        self._answers = Answers(settings, self._forget)
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

    def take_in(self, asked: Asked) -> Promise:
        """Let a call in.

        Raises:
            BusyError: too much waits already.
            StorageError: it cannot be written down.
        """
        drawing = not asked.policy
        self._admission.admit(asked.tenant, tokens=asked.tokens, nbytes=asked.nbytes, drawing=drawing)
        promise = Promise(
            asked.id,
            policy=asked.policy,
            tenant=asked.tenant,
            kind=asked.kind,
            tokens=asked.tokens,
            keeping=self._keeping,
        )
        promise.said = asked.said
        self._promises[asked.id] = promise
        self._under_way[promise] = asked
        self.taken += 1
        return promise

    def answer(self, promise: Promise, answer: object) -> None:
        """Settle a promise with a result or an error."""
        if promise.done:
            return
        asked = self._under_way.pop(promise)
        self._admission.release(asked.tenant, tokens=asked.tokens, nbytes=asked.nbytes, drawing=not asked.policy)
        promise.answered_at = time.time()
        promise.settle(answer)
        if promise.acknowledged:
            self._forget(promise)
        else:
            promise.said = promise.digest  # which lets go of the call itself
            self._answers.keep(promise)
        self._sweep()

    async def drained(self) -> None:
        """Return once nothing is under way."""
        while self._under_way:
            await asyncio.gather(*(promise.result() for promise in list(self._under_way)), return_exceptions=True)
            await asyncio.sleep(0)

    async def _durable(self, promise: Promise) -> None:
        return

    def _acknowledged(self, promise: Promise) -> None:
        if promise.done:
            self._answers.acknowledge(promise)

    def _forget(self, promise: Promise) -> None:
        if self._promises.get(promise.id) is promise:
            del self._promises[promise.id]
        self._forgotten(promise)

    def _sweep(self) -> None:
        now = time.monotonic()
        if now - self._swept > self._settings.answers_seconds / SWEEPS:
            self._swept = now
            self._answers.expire()
