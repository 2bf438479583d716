"""Readings: sequences that are computed and not drawn, for a tenant who may ask for them and is charged."""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

from fettle.broker.admission import Admission
from fettle.broker.samplers import BrokerSampler
from fettle.config import Scheduling
from fettle.service.entries import SamplerEntry
from fettle.service.metrics import Metrics
from fettle.service.usage import Usage

READ = "read"
"""The kind of such work."""
TOKEN_BYTES = 8


class Readings:
    """The door of everything that is read; as many wait as draws may, and beside them."""

    def __init__(
        self, usage: Usage, metrics: Metrics, run_of: Callable[[SamplerEntry], str], scheduling: Scheduling
    ) -> None:
        self._usage = usage
        self._metrics = metrics
        self._run_of = run_of
        self._admission = Admission(scheduling)

    @asynccontextmanager
    async def of(self, entry: SamplerEntry, rows: Sequence[Sequence[int]]) -> AsyncIterator[BrokerSampler]:
        """What ``rows`` are read with; whose sampler it is pays for them."""
        async with self.within(entry.tenant, entry.live, rows, run=self._run_of(entry)) as live:
            yield live

    @asynccontextmanager
    async def within(
        self, tenant: str, live: BrokerSampler, rows: Sequence[Sequence[int]], *, run: str = ""
    ) -> AsyncIterator[BrokerSampler]:
        """What ``rows`` are read with for a tenant.

        Raises:
            BalanceError: its balance is used up.
            BusyError: too much waits already.
        """
        tokens = sum(map(len, rows))
        nbytes = TOKEN_BYTES * tokens
        self._admission.admit(tenant, tokens=tokens, nbytes=nbytes, drawing=True)
        try:
            with self.charged(tenant, live, tokens, run=run) as metered:
                yield metered
        finally:
            self._admission.release(tenant, tokens=tokens, nbytes=nbytes, drawing=True)

    @contextmanager
    def charged(
        self, tenant: str, live: BrokerSampler, tokens: int, *, run: str = "", kind: str = READ
    ) -> Iterator[BrokerSampler]:
        """What so many tokens are read with for a tenant, as a part of work that was let in or will be.

        Raises:
            BalanceError: its balance is used up.
        """
        self._usage.check(tenant)
        seconds = list[float]()
        try:
            yield live.metered(seconds.append, tenant=tenant)
        finally:
            if seconds:
                self._usage.add(tenant, run, kind, seconds=sum(seconds), tokens=tokens)
                self._metrics.computed(tenant, kind, seconds=sum(seconds), tokens=tokens)
