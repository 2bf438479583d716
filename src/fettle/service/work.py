"""Work: operations and draws on their way into the broker, and what is noted of each once it is done."""

import asyncio
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from weakref import WeakValueDictionary

from fettle.broker import Broker, Promise
from fettle.broker.oplog import origin
from fettle.broker.promises import open_id, operation_id
from fettle.calls import Call, Create, Load, Restore, Save
from fettle.engine.base import SampleRequest
from fettle.errors import DataError, FettleError, NotFoundError
from fettle.service.checkpoints import Checkpoints
from fettle.service.entries import CheckpointKind, Run, SamplerEntry
from fettle.service.ids import draw_key, pin_run
from fettle.service.metrics import Metrics
from fettle.service.runs import OVER, Runs
from fettle.service.told import Told
from fettle.service.usage import Usage


class Work:
    """The door of everything that is computed."""

    def __init__(
        self, broker: Broker, runs: Runs, checkpoints: Checkpoints, usage: Usage, told: Told, metrics: Metrics
    ) -> None:
        self._broker = broker
        self._runs = runs
        self._checkpoints = checkpoints
        self._usage = usage
        self._told = told
        self._metrics = metrics
        self._saving: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self.watchers: list[Callable[[Promise], object]] = []
        """Told of each promise that is new."""

    async def begin(self, run: Run, call: Create | Load) -> Promise:
        """Begin a run."""
        known = self.known(open_id(run.id))
        if known is None:
            self._usage.check(run.tenant)
        if self._runs.find(run.id) is not None:
            promise = await self._runs.open(run, call)
        else:
            with self._checkpoints.beginning(origin(call)):
                promise = await self._runs.open(run, call)
        if known is None:
            self._runs.idleness.asked(run.id, promise)
            self._tell(promise)
        return promise

    def submit(self, run: Run, incarnation: int | None, seq: int | None, call: Call, *, digest: str | None) -> Promise:
        """Hand in an operation; without a number it gets the next one."""
        if isinstance(call, Create | Load):
            raise DataError("a run is begun once, and not by an operation of its own")
        incarnation, seq = self.number(run, incarnation, seq)
        known = self.known(operation_id(run.id, incarnation, seq))
        if known is None:
            self.check(run)
            if isinstance(call, Restore):
                self._checkpoints.check_there(call.checkpoint)
        promise = self._broker.submit(run.id, incarnation, seq, call, digest=digest)
        if known is None:
            self._runs.idleness.asked(run.id, promise)
            self._tell(promise)
        return promise

    async def save(
        self,
        run: Run,
        incarnation: int | None,
        seq: int | None,
        *,
        kind: CheckpointKind,
        name: str,
        ttl_seconds: float | None,
        overwrite: bool,
        metadata: Mapping[str, str],
        digest: str | None,
    ) -> Promise:
        """Save a run; the checkpoint is in the catalogue before it is written."""
        said = digest or _digest(kind, name, ttl_seconds, overwrite)
        async with self._saving.setdefault(
            run.id, asyncio.Lock()
        ):  # so that each is planned beside those that were announced
            id = "" if seq is None else operation_id(run.id, self.number(run, incarnation, seq)[0], seq)
            if self.known(id) is not None:
                return self.submit(run, incarnation, seq, Save(name, optimizer=kind == "weights"), digest=said)
            entry = self._checkpoints.planned(
                run, kind=kind, name=name, ttl_seconds=ttl_seconds, overwrite=overwrite, metadata=metadata
            )
            self.check(run)
            await self._checkpoints.announce(entry)
            call = Save(self._checkpoints.save_name(entry), optimizer=entry.optimizer)
            try:
                promise = self.submit(run, incarnation, seq, call, digest=said)
            except BaseException:
                self._checkpoints.retract(entry)
                raise
            promise.when_done(partial(self._checkpoints.saved, entry))
            return promise

    def draw(
        self, sampler: SamplerEntry, key: str, requests: Sequence[SampleRequest], *, digest: str | None
    ) -> Promise:
        """Draw completions; the same key and contents again are the same promise."""
        id = draw_key(sampler.tenant, key)
        known = self.known(id)
        if known is None:
            self._usage.check(sampler.tenant)
        promise = self._broker.draw(id, sampler.weights, requests, tenant=sampler.tenant, digest=digest)
        if known is None:
            run_id = self.run_of(sampler)
            if run_id and not sampler.checkpoint:
                self._runs.idleness.asked(run_id, promise)
            self._usage.watch(promise, run_id)
            promise.when_done(self._metrics.worked)
            self._tell(promise)
            promise.when_done(partial(self._drew, run_id, requests))
        return promise

    def known(self, id: str) -> Promise | None:
        """The promise of that id, whoever's it is."""
        try:
            return self._broker.promise(id)
        except NotFoundError:
            return None

    def made_of(self, run_id: str) -> str | None:
        """The model or the checkpoint's folder that a run's policy began from, as far as it is known."""
        return self._broker.made_of(run_id)

    def check(self, run: Run) -> None:
        """Refuse new work for a run.

        Raises:
            BalanceError: its tenant's balance is used up.
            StateError: it is not active.
        """
        self._usage.check(run.tenant)
        self._runs.check_worked_on(run)

    def number(self, run: Run, incarnation: int | None, seq: int | None) -> tuple[int, int]:
        """Numbers that were given, and the next ones in the place of those that were not."""
        info = self._broker.policies().get(run.id)
        holder, following = (info.incarnation, info.next_seq) if info is not None else (0, 0)
        return holder if incarnation is None else incarnation, following if seq is None else seq

    def run_of(self, sampler: SamplerEntry) -> str:
        """The run whose weights are drawn from; empty for a base model."""
        if sampler.checkpoint:
            return sampler.checkpoint.partition("/")[0]
        run = self._runs.find(pin_run(sampler.weights))
        return run.id if run is not None else ""

    def answered(self, promise: Promise) -> None:
        """Take note of what an operation came to, whichever process took it in."""
        if promise.policy:
            self._usage.watch(promise)
            self._metrics.worked(promise)
            self._told.worked(promise.policy, promise)
            self._runs.answered(promise)
            if promise.kind == "close" and not isinstance(promise.answer, FettleError):
                self._told.forget(promise.policy)
            self._checkpoints.answered(promise)

    def _drew(self, run_id: str, requests: Sequence[SampleRequest], promise: Promise) -> None:
        """Tell of a draw of a run that goes on: from its published checkpoints others draw as well."""
        run = self._runs.find(run_id)
        if run is not None and run.tenant == promise.tenant and run.state not in OVER:
            self._told.drew(run_id, requests, promise)

    def _tell(self, promise: Promise) -> None:
        for told in self.watchers:
            told(promise)


def _digest(*said: object) -> str:
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:32]
