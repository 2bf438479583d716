"""The service: everything that a face may do, and no HTTP in it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from fettle.broker import Broker, Promise
from fettle.calls import Call
from fettle.config import PolicySpec, ServiceConfig
from fettle.engine.base import SampleRequest
from fettle.errors import DataError
from fettle.service.artifacts import Artifacts
from fettle.service.audit import Audit
from fettle.service.auth import Doors
from fettle.service.beginnings import Beginnings
from fettle.service.beside import Beside, generated
from fettle.service.callers import Caller
from fettle.service.capacity import Room
from fettle.service.checkpoints import Checkpoints
from fettle.service.clock import Clock, now
from fettle.service.entries import CheckpointEntry, CheckpointKind, Run, RunState, SamplerEntry
from fettle.service.goingon import in_turn
from fettle.service.ids import checked, draw_key, new_id
from fettle.service.keys import Keyring
from fettle.service.later import Later
from fettle.service.metrics import Metrics
from fettle.service.models import Models
from fettle.service.owned import Owners, unknown
from fettle.service.rates import Rates
from fettle.service.readings import Readings
from fettle.service.runs import Described, Runs
from fettle.service.samplers import Samplers
from fettle.service.sessions import Sessions
from fettle.service.store import Store
from fettle.service.told import Told
from fettle.service.upkeep import Upkeep
from fettle.service.usage import Usage
from fettle.service.work import Work

NOTHING: Mapping[str, str] = MappingProxyType({})
LAST_WRITES_S = 5.0
LAST_SNAPSHOTS_S = 300.0


class Service:
    """Runs, samplers, checkpoints and sessions of tenants, over one broker. What is another's is as if it were not."""

    def __init__(
        self, settings: ServiceConfig, broker: Broker, store: Store, models: Models, room: Room, *, clock: Clock = now
    ) -> None:
        state = Path(settings.state)
        self.settings = settings
        self.broker = broker
        self.store = store
        self.models = models
        self.clock = clock
        self.stopping = False
        """Whether no new work is taken in."""
        self.ready = False
        """Whether something has really been generated."""
        self.audit = Audit(store, state)
        self.keys = Keyring(store, self.audit)
        self.doors = Doors(self.keys, self.audit, Rates(self.audit), settings.auth)
        self.usage = Usage(store, settings.prices)
        self.metrics = Metrics(self.counts)
        self._later = Later()
        self.told = Told(state, self._later, clock)
        owners = Owners(lambda caller, subject: self.audit.note("foreign_access", caller, subject=subject))
        most, rank = settings.max_policies, settings.max_rank
        self._runs = Runs(broker, store, owners, self._later, clock, room, most=most, max_rank=rank)
        self.artifacts = Artifacts(settings.artifacts_url)
        self._checkpoints = Checkpoints(
            broker, store, self.artifacts, owners, self._later, clock, state=state, standing_on=self._runs.standing_on
        )
        found, most = self._checkpoints.find, settings.max_samplers
        self._samplers = Samplers(broker, store, self._runs, models, found, owners, self._later, clock, most=most)
        self.sessions = Sessions(store, owners, clock, timeout_s=settings.session_timeout_s)
        self._work = Work(broker, self._runs, self._checkpoints, self.usage, self.told, self.metrics)
        self._beginnings = Beginnings(self._runs, self._checkpoints, self._work, models, self.audit)
        self.readings = Readings(self.usage, self.metrics, self._work.run_of, settings.scheduling)
        self._beside = Beside(self._runs, self._samplers, self._checkpoints, self.sessions)
        self._upkeep = Upkeep(self.keys.settled, self.audit.flush, self.usage.flush, self._beside.sweep)
        self._trying: asyncio.Task[None] | None = None

    # --- from start to end ----------------------------------------------------------------------------

    async def recovered(self) -> "Service":
        """Itself, with everything that the catalogue knows."""
        for kept in (self.usage, self.sessions, self._runs, self._checkpoints, self._samplers):
            await kept.load()
        # Not before it is known what was counted.
        self.broker.when_answered(self._work.answered)
        await self.usage.reconcile(self.broker)
        self._runs.reconcile(self.usage.knows)
        self.usage.when_emptied(self._beside.pause_unpaid)
        self.usage.when_refilled(self._beside.resume_paid)
        return self

    async def start(self) -> None:
        """Begin what goes on beside the requests, and see whether the first model generates."""
        self._upkeep.start()
        self._trying = asyncio.get_running_loop().create_task(self._try_a_generation())

    async def stop(self, *, patience_s: float = 30.0) -> None:
        """Take in nothing more, wait for what is under way up to a limit, and write everything down."""
        self.stopping = True
        if self._trying is not None:
            self._trying.cancel()
        await in_turn(
            asyncio.wait_for(self.broker.drained(), patience_s),
            asyncio.wait_for(self.broker.snapshot_all(), LAST_SNAPSHOTS_S),
            self._upkeep.stop(patience_s=LAST_WRITES_S),
            self._beside.close(patience_s=LAST_WRITES_S),
            self._runs.close(patience_s=LAST_WRITES_S),
            self._later.close(patience_s=LAST_WRITES_S),
            self._checkpoints.close(patience_s=LAST_WRITES_S),
        )
        self.told.close()

    # --- runs -----------------------------------------------------------------------------------------

    async def create_run(
        self,
        caller: Caller,
        spec: PolicySpec,
        *,
        run_id: str | None = None,
        name: str = "",
        metadata: Mapping[str, str] = NOTHING,
        session: str = "",
    ) -> Promise:
        """A run from a served model, or from a checkpoint's weights taken as if they were a model's.

        The same id and settings again are the same promise.
        """
        self._check_session(caller, session)
        return await self._beginnings.create(caller, spec, Described(run_id, name, metadata, session))

    async def load_run(
        self,
        caller: Caller,
        checkpoint: str,
        *,
        optimizer: bool,
        run_id: str | None = None,
        name: str = "",
        metadata: Mapping[str, str] = NOTHING,
        session: str = "",
    ) -> Promise:
        """A run that goes on from a checkpoint; with its optimizer, as if it had never stopped."""
        self._check_session(caller, session)
        told = Described(run_id, name, metadata, session)
        return await self._beginnings.load(caller, checkpoint, told, optimizer=optimizer)

    async def restore(
        self,
        caller: Caller,
        run_id: str,
        incarnation: int | None,
        seq: int | None,
        checkpoint: str,
        *,
        optimizer: bool,
        digest: str | None = None,
    ) -> Promise:
        """Have a run take a checkpoint up in place; the same again is the same promise, even if it is gone since."""
        run = self.run(caller, run_id)
        return await self._beginnings.restore(
            caller, run, incarnation, seq, checkpoint, optimizer=optimizer, digest=digest
        )

    def run(self, caller: Caller, run_id: str) -> Run:
        """The caller's run of that id.

        Raises:
            NotFoundError: the caller has none.
        """
        return self._runs.run(caller, run_id)

    async def runs(self, caller: Caller, *, limit: int, offset: int = 0) -> tuple[list[Run], int]:
        """The caller's runs, newest first, and how many there are."""
        mine = self._runs.of(caller.tenant)
        return mine[offset : offset + limit], len(mine)

    async def set_state(self, caller: Caller, run_id: str, state: RunState) -> Run:
        """Pause, resume, complete or give up a run. What was taken in before is carried out first.

        Raises:
            StateError: it cannot go there.
        """
        if state == "active":
            self.usage.check(caller.tenant)
        return await self._runs.set_state(self.run(caller, run_id), state)

    async def attach(self, caller: Caller, run_id: str) -> int:
        """Shut out whoever works on a run now; the incarnation of its new holder, whose numbers begin at 0."""
        run = self.run(caller, run_id)
        self._runs.check_worked_on(run)
        return await self.broker.attach(run.id)

    def submit(
        self,
        caller: Caller,
        run_id: str,
        incarnation: int | None,
        seq: int | None,
        call: Call,
        *,
        digest: str | None = None,
    ) -> Promise:
        """Hand in an operation of a run; without a number it gets the next one.

        The same number and contents again are the same promise, whatever became of the run since. Checkpoints in a
        call are folders: whoever hands it in has looked them up for the caller.

        Raises:
            BalanceError: the tenant's balance is used up.
            BusyError: too much waits.
            SequenceError: see ``Broker.submit``.
            StateError: the run is not active.
            StorageError: it cannot be written down, and is not carried out.
        """
        return self._work.submit(self.run(caller, run_id), incarnation, seq, call, digest=digest)

    async def save(
        self,
        caller: Caller,
        run_id: str,
        incarnation: int | None,
        seq: int | None,
        *,
        kind: CheckpointKind,
        name: str,
        ttl_seconds: float | None = None,
        overwrite: bool = False,
        metadata: Mapping[str, str] = NOTHING,
        digest: str | None = None,
    ) -> Promise:
        """Save a run: ``weights`` with the optimizer, from which training goes on, or ``sampler_weights``.

        Raises:
            CheckpointError: there is one of that name, and it is not to be overwritten.
        """
        return await self._work.save(
            self.run(caller, run_id),
            incarnation,
            seq,
            kind=kind,
            name=name,
            ttl_seconds=ttl_seconds,
            overwrite=overwrite,
            metadata=metadata,
            digest=digest,
        )

    # --- samplers and draws ---------------------------------------------------------------------------

    async def open_sampler(
        self,
        caller: Caller,
        *,
        model: str | None = None,
        checkpoint: str | None = None,
        pin: str | None = None,
        session: str = "",
        sampler_id: str | None = None,
    ) -> SamplerEntry:
        """A sampler of one of a served model, a checkpoint, and a run's weights as a ``Pin`` of it keeps them.

        The same id again is the same sampler.
        """
        if (model is not None) + (checkpoint is not None) + (pin is not None) != 1:
            raise DataError("a sampler is of one thing: give model, checkpoint or pin")
        id = new_id("sampler") if sampler_id is None else checked("the id", sampler_id)
        if model is not None:
            return await self._samplers.of_model(caller, self.models.named(model), id, session)
        if checkpoint is not None:
            entry = await self._checkpoints.fetched(self.checkpoint(caller, checkpoint))
            return await self._samplers.of_checkpoint(caller, entry, id, session)
        return await self._samplers.of_pin(caller, str(pin), id, session)

    def sampler(self, caller: Caller, sampler_id: str) -> SamplerEntry:
        """The caller's sampler of that id; a pin is a sampler by its own id.

        Raises:
            NotFoundError: the caller has none.
        """
        return self._samplers.sampler(caller, sampler_id)

    async def close_sampler(self, caller: Caller, sampler_id: str) -> None:
        """Let a sampler go."""
        await self._samplers.close(caller, sampler_id)

    def draw(
        self, caller: Caller, key: str, sampler_id: str, requests: Sequence[SampleRequest], *, digest: str | None = None
    ) -> Promise:
        """Draw completions, request after request; the same key and contents again are the same promise."""
        return self._work.draw(self.sampler(caller, sampler_id), key, requests, digest=digest)

    def promise(self, caller: Caller, id: str) -> Promise:
        """The caller's promise of that id; a draw is found by its key as well.

        Raises:
            NotFoundError: the caller has none.
        """
        promise = self._work.known(id) or self._work.known(draw_key(caller.tenant, id))
        if promise is None or promise.tenant != caller.tenant:
            raise unknown("promise", id)
        return promise

    # --- checkpoints ----------------------------------------------------------------------------------

    def checkpoint(self, caller: Caller, id: str) -> CheckpointEntry:
        """The checkpoint of that id or address, if it is the caller's or public.

        Raises:
            NotFoundError: there is none that the caller may read.
        """
        return self._checkpoints.checkpoint(caller, id)

    async def checkpoints(
        self, caller: Caller, *, run_id: str | None = None, limit: int, offset: int = 0
    ) -> tuple[list[CheckpointEntry], int]:
        """The caller's checkpoints, newest first, and how many there are."""
        mine = self._checkpoints.of(caller.tenant)
        if run_id is not None:
            run = self.run(caller, run_id)
            mine = [entry for entry in mine if entry.run == run.id]
        return mine[offset : offset + limit], len(mine)

    async def delete_checkpoint(self, caller: Caller, id: str) -> None:
        """Delete a checkpoint of the caller's."""
        entry = self._checkpoints.owned(caller, id)
        await self._checkpoints.delete(entry)
        self.audit.note("checkpoint_deleted", caller, subject=entry.id)

    async def set_ttl(self, caller: Caller, id: str, ttl_seconds: float | None) -> CheckpointEntry:
        """Say from now on how long a checkpoint is kept; None keeps it for good."""
        return await self._checkpoints.expire(self._checkpoints.owned(caller, id), ttl_seconds)

    async def publish(self, caller: Caller, id: str, public: bool) -> CheckpointEntry:
        """Let every tenant read a checkpoint, or only its owner."""
        entry = await self._checkpoints.publish(self._checkpoints.owned(caller, id), public=public)
        self.audit.note("checkpoint_published" if public else "checkpoint_unpublished", caller, subject=entry.id)
        return entry

    async def files(self, caller: Caller, id: str) -> list[tuple[str, int]]:
        """A checkpoint's files, each with its size."""
        return await self.artifacts.files(self.checkpoint(caller, id))

    def file(self, caller: Caller, id: str, name: str) -> AsyncIterator[bytes]:
        """One of a checkpoint's files, piece by piece; ``NotFoundError`` comes with the first."""
        return self.artifacts.read(self.checkpoint(caller, id), name)

    def archive(self, caller: Caller, id: str) -> AsyncIterator[bytes]:
        """A checkpoint as a tar file, piece by piece."""
        return self.artifacts.archive(self.checkpoint(caller, id))

    def uri_of(self, path: str) -> str:
        """How clients name the checkpoint that lies in a folder."""
        return self._checkpoints.uri_of(path)

    # --- sessions -------------------------------------------------------------------------------------

    async def create_session(
        self, caller: Caller, metadata: Mapping[str, str] = NOTHING, tags: Sequence[str] = (), key: str = ""
    ) -> str:
        """A session; the same key again is the same session."""
        return await self.sessions.create(caller, metadata, tags, key)

    def heartbeat(self, caller: Caller, session: str) -> None:
        """Note that a session's client is there.

        Raises:
            NotFoundError: the caller has no such session, or it was finished.
        """
        self.sessions.heartbeat(caller, session)

    async def finish_session(self, caller: Caller, session: str) -> None:
        """End a session: its runs give their memory back until they are worked on again."""
        await self._beside.finish(self.sessions.session(caller, session))

    # --- how it stands --------------------------------------------------------------------------------

    def when_submitted(self, told: Callable[[Promise], object]) -> None:
        """Have ``told`` called with every operation and draw that is taken in."""
        self._work.watchers.append(told)

    def counts(self) -> Mapping[str, float]:
        """How much waits, and how much there is."""
        return {**self.broker.counts(), "samplers": len(self._samplers), "ready": float(self.ready)}

    def _check_session(self, caller: Caller, session: str) -> None:
        if session:
            self.heartbeat(caller, session)

    async def _try_a_generation(self) -> None:
        await generated(self.broker, self.models)
        self.ready = True
