"""Answers that are kept for whoever asks again: until they are acknowledged, grow old, or need too much memory."""

import time
from collections.abc import Callable

from fettle.broker.promises import Promise
from fettle.config import JournalSettings

SURE = 16
"""A tenant's newest answers, which are kept whatever their size."""


class Answers:
    """Promises that are done and not acknowledged; ``forget`` is told of each that is no longer kept."""

    def __init__(self, settings: JournalSettings, forget: Callable[[Promise], None]) -> None:
        self._seconds = settings.answers_seconds
        self._most = settings.answers_mib << 20
        self._forget = forget
        self._kept: dict[str, dict[Promise, int]] = {}  # by tenant, the oldest first, with their bytes
        self._since: dict[Promise, float] = {}  # on a clock that nobody sets
        self._bytes: dict[str, int] = {}

    @property
    def nbytes(self) -> int:
        """Memory of them all."""
        return sum(self._bytes.values())

    def keep(self, promise: Promise, *, age: float = 0.0) -> None:
        """Add one that is done, ``age`` seconds ago; older ones make room for it."""
        size = promise.nbytes
        self._since[promise] = time.monotonic() - age
        self._kept.setdefault(promise.tenant, {})[promise] = size
        self._bytes[promise.tenant] = self._bytes.get(promise.tenant, 0) + size
        while self.nbytes > self._most:
            tenant = max(self._bytes, key=self._bytes.__getitem__)
            if len(self._kept[tenant]) <= SURE:
                break
            self._drop(next(iter(self._kept[tenant])))

    def acknowledge(self, promise: Promise) -> bool:
        """Let go of it; whether it was kept."""
        kept = promise in self._kept.get(promise.tenant, {})
        if kept:
            self._drop(promise)
        return kept

    def expire(self) -> None:
        """Let go of those that are older than is kept."""
        since = time.monotonic() - self._seconds
        for kept in list(self._kept.values()):
            for promise in [each for each in kept if self._since[each] < since]:
                self._drop(promise)

    def _drop(self, promise: Promise) -> None:
        tenant = promise.tenant
        del self._since[promise]
        self._bytes[tenant] -= self._kept[tenant].pop(promise)
        if not self._kept[tenant]:
            del self._kept[tenant], self._bytes[tenant]
        self._forget(promise)
