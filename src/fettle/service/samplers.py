"""Samplers: weights that can be drawn from, whose they are, and when they are let go."""

from collections import Counter, OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields
from functools import partial

from fettle.broker import Broker, Promise
from fettle.broker.samplers import BrokerSampler
from fettle.errors import NotFoundError, SequenceError
from fettle.service.callers import Caller
from fettle.service.clock import Clock
from fettle.service.entries import CheckpointEntry, SamplerEntry, SamplerRow
from fettle.service.ids import pin_run
from fettle.service.later import Later
from fettle.service.models import Model, Models
from fettle.service.owned import Owners, unknown
from fettle.service.runs import Runs
from fettle.service.store import Store


class Samplers:
    """Every sampler of every tenant, in memory, least recently used first.

    A pin is a sampler by its own id from when it is made, and lasts as the policy does. Beyond ``most`` the least
    recently used is let go of the tenant who has the most, so that none loses its own to one who takes more.
    """

    def __init__(
        self,
        broker: Broker,
        store: Store,
        runs: Runs,
        models: Models,
        saved: Callable[[str], CheckpointEntry | None],
        owners: Owners,
        later: Later,
        clock: Clock,
        *,
        most: int,
    ) -> None:
        self._broker = broker
        self._store = store
        self._runs = runs
        self._owners = owners
        self._later = later
        self._clock = clock
        self._most = most
        self._models = models
        self._saved = saved
        self._samplers: OrderedDict[tuple[str, str], SamplerEntry] = OrderedDict()
        """By tenant and id."""

    async def load(self) -> None:
        """Take up those of the catalogue, and pins; forget those whose pin or checkpoint is gone.

        Nothing is loaded for it: what is drawn from is, when that begins.
        """
        self._broker.when_answered(self._answered)
        for pin, policy in self._broker.pins().items():
            self._add_pin(policy, pin)
        for row in await self._store.samplers():
            live = self._taken_up(row)
            if live is None:
                self._later.post(partial(self._store.remove_sampler, row.tenant, row.id))
            else:
                self._put(_entry(row, live))
        self._let_the_oldest_go()

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
            try:
                return self._bare_pin(run.model, caller.tenant, sampler_id)
            except NotFoundError as error:
                raise unknown("sampler", sampler_id) from error
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
        self._put(entry)
        self._let_the_oldest_go()
        return entry

    async def _live(self, weights: str, *, pinned: bool) -> BrokerSampler:
        return self._broker.pinned(weights) if pinned else await self._broker.sampler(weights)

    def _is_pin(self, row: SamplerRow) -> bool:
        """Whether it draws from a run's weights, not from a model's or a checkpoint's."""
        return not row.checkpoint and self._runs.find(pin_run(row.weights)) is not None

    def _taken_up(self, row: SamplerRow) -> BrokerSampler | None:
        """What a row of the catalogue draws from, not loaded yet; None where it is gone."""
        if row.checkpoint:
            saved = self._saved(row.checkpoint)
            if saved is None or saved.path != row.weights:
                return None
            return self._broker.unopened(row.weights, saved.policy_version)
        if any(model.path == row.weights for model in self._models):
            return self._broker.unopened(row.weights, 0)
        try:
            return self._broker.pinned(row.weights)
        except NotFoundError:
            return None

    def _answered(self, promise: Promise) -> None:
        """Take note of an operation that was answered: a pin counts as a sampler, whether anybody draws from it."""
        if promise.kind == "pin" and not isinstance(promise.answer, BaseException):
            with suppress(NotFoundError):  # It may be released already.
                self._add_pin(promise.policy, promise.id)
                self._let_the_oldest_go()

    def _add_pin(self, policy: str, pin: str) -> None:
        """Count a pin among the samplers, unless one is opened on it."""
        run = self._runs.find(policy)
        if run is not None and all(entry.weights != pin for entry in self._samplers.values()):
            self._bare_pin(run.model, run.tenant, pin)

    def _bare_pin(self, model: str, tenant: str, pin: str) -> SamplerEntry:
        live = self._broker.pinned(pin)
        row = SamplerRow(pin, tenant, model, "", pin, self._clock())
        entry = self._samplers[tenant, pin] = _entry(row, live)
        return entry

    def _put(self, entry: SamplerEntry) -> None:
        """Add one; a pin that it is opened on no longer counts by itself."""
        if entry.id != entry.weights:
            self._samplers.pop((entry.tenant, entry.weights), None)
        self._samplers[entry.tenant, entry.id] = entry

    def _let_the_oldest_go(self) -> None:
        if len(self._samplers) > self._most:
            pins = self._broker.pins()
            for entry in [each for each in self._samplers.values() if self._is_pin(each) and each.weights not in pins]:
                self._let_go(entry)
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
