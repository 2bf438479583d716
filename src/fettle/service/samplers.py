"""Samplers: weights that can be drawn from, whose they are, and when they are let go."""

import logging
from collections import Counter, OrderedDict
from dataclasses import fields
from functools import partial

from fettle.broker import Broker
from fettle.broker.samplers import BrokerSampler
from fettle.errors import FettleError, NotFoundError, SequenceError
from fettle.service.callers import Caller
from fettle.service.clock import Clock
from fettle.service.entries import CheckpointEntry, SamplerEntry, SamplerRow
from fettle.service.ids import pin_run
from fettle.service.later import Later
from fettle.service.models import Model
from fettle.service.owned import Owners, unknown
from fettle.service.runs import Runs
from fettle.service.store import Store

logger = logging.getLogger(__name__)


class Samplers:
    """Every sampler of every tenant, in memory, least recently used first.

    A pin is a sampler by its own id, and lasts as the policy does. Beyond ``most`` the least recently used is let go
    of the tenant who has the most, so that none loses its own to one who takes more.
    """

    def __init__(
        self, broker: Broker, store: Store, runs: Runs, owners: Owners, later: Later, clock: Clock, *, most: int
    ) -> None:
        self._broker = broker
        self._store = store
        self._runs = runs
        self._owners = owners
        self._later = later
        self._clock = clock
        self._most = most
        self._samplers: OrderedDict[tuple[str, str], SamplerEntry] = OrderedDict()
        """By tenant and id."""

    async def load(self) -> None:
        """Take up those of the catalogue that can be drawn from, and forget those whose pins are gone.

        What cannot be opened now, for want of memory or of a file, is tried again at the next start.
        """
        for row in await self._store.samplers():
            try:
                live = await self._live(row.weights, pinned=self._is_pin(row))
            except NotFoundError:
                self._later.post(partial(self._store.remove_sampler, row.tenant, row.id))
            except FettleError as error:
                logger.warning("the sampler %s of %s cannot be opened: %s", row.id, row.tenant, error.message)
            else:
                self._samplers[row.tenant, row.id] = _entry(row, live)

    async def of_model(self, caller: Caller, model: Model, sampler_id: str, session: str) -> SamplerEntry:
        """A base model's."""
        row = SamplerRow(sampler_id, caller.tenant, model.name, "", model.path, self._clock(), session)
        return await self._opened(row, pinned=False)

    async def of_checkpoint(
        self, caller: Caller, checkpoint: CheckpointEntry, sampler_id: str, session: str
    ) -> SamplerEntry:
        """A checkpoint's."""
        row = SamplerRow(
            sampler_id, caller.tenant, checkpoint.model, checkpoint.id, checkpoint.path, self._clock(), session
        )
        return await self._opened(row, pinned=False)

    async def of_pin(self, caller: Caller, pin: str, sampler_id: str, session: str) -> SamplerEntry:
        """A run's, as its weights were at an operation."""
        run = self._runs.run(caller, pin_run(pin))
        row = SamplerRow(sampler_id, caller.tenant, run.model, "", pin, self._clock(), session)
        return await self._opened(row, pinned=True)

    def __len__(self) -> int:
        return len(self._samplers)

    def sampler(self, caller: Caller, sampler_id: str) -> SamplerEntry:
        """The caller's pin of that id, or sampler.

        Raises:
            NotFoundError: the caller has none.
        """
        own = self._samplers.get((caller.tenant, sampler_id))
        if own is not None:
            self._samplers.move_to_end((caller.tenant, sampler_id))
            return own
        if (run := self._runs.find(pin_run(sampler_id))) is not None and run.tenant == caller.tenant:
            return self._of_bare_pin(run.model, caller, sampler_id)
        others = {entry.id: entry for entry in self._samplers.values() if entry.id == sampler_id}
        return self._owners.find("sampler", others, sampler_id, caller)

    async def close(self, caller: Caller, sampler_id: str) -> None:
        """Let it go; draws that are under way go on."""
        entry = self.sampler(caller, sampler_id)
        await self._store.remove_sampler(entry.tenant, entry.id)
        self._forget(entry)

    def finish_session(self, session: str) -> None:
        """Let go what a session opened."""
        for entry in [entry for entry in self._samplers.values() if session and entry.session == session]:
            self._let_go(entry)

    async def _opened(self, row: SamplerRow, *, pinned: bool) -> SamplerEntry:
        before = self._samplers.get((row.tenant, row.id))
        if before is not None:
            if before.weights != row.weights:
                raise SequenceError(f"the sampler {row.id} was opened before, of other weights: choose another id")
            return before
        entry = _entry(row, await self._live(row.weights, pinned=pinned))
        await self._store.put_sampler(row)
        self._samplers[row.tenant, row.id] = entry
        self._let_the_oldest_go()
        return entry

    async def _live(self, weights: str, *, pinned: bool) -> BrokerSampler:
        return self._broker.pinned(weights) if pinned else await self._broker.sampler(weights)

    def _is_pin(self, row: SamplerRow) -> bool:
        """Whether it draws from a run's weights, not from a model's or a checkpoint's."""
        return not row.checkpoint and self._runs.find(pin_run(row.weights)) is not None

    def _of_bare_pin(self, model: str, caller: Caller, pin: str) -> SamplerEntry:
        try:
            live = self._broker.pinned(pin)
        except NotFoundError as error:
            raise unknown("sampler", pin) from error
        row = SamplerRow(pin, caller.tenant, model, "", pin, self._clock())
        entry = self._samplers[row.tenant, row.id] = _entry(row, live)
        self._let_the_oldest_go()
        return entry

    def _let_the_oldest_go(self) -> None:
        while len(self._samplers) > self._most:
            held = Counter(tenant for tenant, _ in self._samplers)
            most = max(held.values())
            self._let_go(next(entry for entry in self._samplers.values() if held[entry.tenant] == most))

    def _let_go(self, entry: SamplerEntry) -> None:
        self._forget(entry)
        self._later.post(partial(self._store.remove_sampler, entry.tenant, entry.id))

    def _forget(self, entry: SamplerEntry) -> None:
        self._samplers.pop((entry.tenant, entry.id), None)
        others = (other.weights for other in self._samplers.values())
        if self._is_pin(entry) and entry.weights not in others:
            self._broker.release(entry.weights)


def _entry(row: SamplerRow, live: BrokerSampler) -> SamplerEntry:
    return SamplerEntry(**{field.name: getattr(row, field.name) for field in fields(SamplerRow)}, live=live)
