"""What is let in: limits on what waits, and an honest word on when to come again."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from fettle.config import Scheduling
from fettle.errors import BusyError

REMEMBERED_SECONDS = 60.0
"""Over how long the pace of work is taken."""

SOONEST, LATEST = 0.1, 60.0
"""Seconds between which one is asked to come again."""

GRACE = 2.0
"""Seconds beyond it for which a place is left to one who was turned away."""


EARLY_SHARE = 0.25
"""Of all places, those that operations may take before it is their turn: they could wait in them for ever."""


@dataclass(slots=True)
class Waiting:
    """What was let in and is not done."""

    operations: int = 0
    draws: int = 0
    tokens: int = 0
    nbytes: int = 0

    @property
    def nothing(self) -> bool:
        """Whether there is none."""
        return not (self.operations or self.draws)


class Pace:
    """How fast something is got through while there is some of it: busy seconds over amounts, older ones fading."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since = clock()
        self._seconds = 0.0
        self._amount = 0.0

    def begins(self) -> None:
        """There is something to do again; the time before does not count."""
        self._since = self._clock()

    def done(self, amount: float) -> None:
        """So much of it was finished."""
        passed = self._clock() - self._since
        fading = math.exp(-passed / REMEMBERED_SECONDS)
        self._seconds = fading * self._seconds + passed
        self._amount = fading * self._amount + amount
        self._since += passed

    def seconds(self, amount: float) -> float:
        """How long it takes for ``amount``; a standstill counts. One second where nothing was ever finished."""
        passed = self._clock() - self._since
        if not self._amount:
            return max(1.0, passed)
        return amount * (self._seconds + passed) / self._amount


@dataclass(slots=True)
class _Tenant:
    operations: Pace
    draws: Pace
    waiting: Waiting = field(default_factory=Waiting)


class Admission:
    """Limits on what waits, of a tenant and of all; called from one thread, the event loop's.

    A tenant may fill every place while nobody else wants any. While another has something waiting, or was turned away
    and asked to come again, it gets no more until it holds less than its share.
    """

    def __init__(self, settings: Scheduling, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._tenants: dict[str, _Tenant] = {}
        self._present: set[str] = set()  # who has something waiting
        self._returning: dict[str, float] = {}  # until when a place is left to those who were turned away
        self._nbytes = Pace(clock)
        self._beyond: tuple[str, int] | None = None  # whose call was let in beyond the memory, and how large it is
        self.waiting = Waiting()

    def admit(
        self, tenant: str, *, tokens: int, nbytes: int, drawing: bool, early: bool = False, awaited: bool = False
    ) -> None:
        """Let one call in, which ``release`` must be told of when it is done.

        ``early``: others must come before it. ``awaited``: others wait for it, or it gives something back; however many
        wait, it is let in, and beyond the memory there is, one such at a time.

        Raises:
            BusyError: too much waits already; ``retry_after`` is how long places take to come free at the recent pace.
        """
        known = self._known(tenant)
        share = self._settings.tenant_share if self._others_want(tenant) else 1.0
        try:
            if awaited:
                self._refuse_if_beyond(tenant, known, share, nbytes)
            else:
                self._refuse_if_many(known, share * (EARLY_SHARE if early else 1.0), drawing)
                self._refuse_if_large(known, share, nbytes, early)
        except BusyError as error:
            self._returning[tenant] = self._clock() + error.retry_after + GRACE
            raise
        self._returning.pop(tenant, None)
        self._present.add(tenant)
        if not (known.waiting.draws if drawing else known.waiting.operations):
            (known.draws if drawing else known.operations).begins()
        if not self.waiting.nbytes:
            self._nbytes.begins()
        self._count(known, 1, tokens, nbytes, drawing)

    def release(self, tenant: str, *, tokens: int, nbytes: int, drawing: bool) -> None:
        """A call that was let in, by the same figures, is done, failed or cancelled."""
        known = self._known(tenant)
        if self._beyond == (tenant, nbytes):
            self._beyond = None
        self._count(known, -1, -tokens, -nbytes, drawing)
        if known.waiting.nothing:
            self._present.discard(tenant)
        (known.draws if drawing else known.operations).done(1)
        self._nbytes.done(nbytes)

    def waiting_of(self, tenant: str) -> Waiting:
        """What one tenant has waiting."""
        return self._known(tenant).waiting

    def _known(self, tenant: str) -> _Tenant:
        if tenant not in self._tenants:
            self._tenants[tenant] = _Tenant(Pace(self._clock), Pace(self._clock))
        return self._tenants[tenant]

    def _others_want(self, tenant: str) -> bool:
        now = self._clock()
        for name in [name for name, until in self._returning.items() if until < now]:
            del self._returning[name]
        return len(self._present) > (tenant in self._present) or len(self._returning) > (tenant in self._returning)

    def _refuse_if_many(self, known: _Tenant, share: float, drawing: bool) -> None:
        limit = self._settings.waiting_draws if drawing else self._settings.waiting_operations
        held = known.waiting.draws if drawing else known.waiting.operations
        beyond = held + 1 - max(1, int(limit * share))
        if beyond > 0:
            pace = known.draws if drawing else known.operations
            raise _busy(f"{held} {'draws' if drawing else 'training calls'} wait already", pace.seconds(beyond))

    def _refuse_if_large(self, known: _Tenant, share: float, nbytes: int, early: bool) -> None:
        limit = int((self._settings.waiting_mib << 20) * (EARLY_SHARE if early else 1.0))
        beyond_share = known.waiting.nbytes + nbytes - int(limit * share) if known.waiting.nbytes or early else 0
        beyond_all = self.waiting.nbytes + nbytes - limit if self.waiting.nbytes or early else 0
        beyond = max(beyond_share, beyond_all)
        if beyond > 0:
            raise _busy(f"{self.waiting.nbytes >> 20} MiB of calls wait already", self._nbytes.seconds(beyond))

    def _refuse_if_beyond(self, tenant: str, known: _Tenant, share: float, nbytes: int) -> None:
        try:
            self._refuse_if_large(known, share, nbytes, early=False)
        except BusyError:
            if nbytes and self._beyond is not None:
                raise
            self._beyond = self._beyond or (tenant, nbytes)

    def _count(self, known: _Tenant, calls: int, tokens: int, nbytes: int, drawing: bool) -> None:
        for waiting in (known.waiting, self.waiting):
            if drawing:
                waiting.draws += calls
            else:
                waiting.operations += calls
            waiting.tokens += tokens
            waiting.nbytes += nbytes


def _busy(what: str, seconds: float) -> BusyError:
    wait = min(max(seconds, SOONEST), LATEST)
    return BusyError(f"{what}, as many as are let in: send this again in about {wait:.1f} s", wait)
