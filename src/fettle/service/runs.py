"""Runs: who owns them, what state they are in, and how they begin and end."""

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType

from fettle.broker import Broker, Promise
from fettle.calls import Close, Create, Load
from fettle.config import PolicySpec
from fettle.errors import BusyError, ConfigError, FettleError, NotFoundError, StateError
from fettle.service.callers import Caller
from fettle.service.capacity import Room
from fettle.service.clock import Clock
from fettle.service.entries import Run, RunState
from fettle.service.ids import checked, new_id
from fettle.service.later import Later
from fettle.service.owned import Owners
from fettle.service.store import Store

MOVES: Mapping[RunState, Collection[RunState]] = MappingProxyType(
    {
        "active": ("paused", "completed", "failed"),
        "paused": ("active", "completed", "failed"),
        "completed": (),
        "failed": (),
    }
)
"""From each state, those that a run can go to. A paused run gives its memory back and keeps everything else."""

ROOM_AGAIN_S = 30.0
"""After which it is worth asking again for a run beyond the most there may be."""


@dataclass(frozen=True, slots=True)
class Described:
    """What its owner says of a new run."""

    run_id: str | None
    name: str
    metadata: Mapping[str, str]
    session: str


class Runs:
    """Every run of every tenant, in memory."""

    def __init__(
        self,
        broker: Broker,
        store: Store,
        owners: Owners,
        later: Later,
        clock: Clock,
        room: Room,
        *,
        most: int,
        max_rank: int,
    ) -> None:
        self._broker = broker
        self._room = room
        self._store = store
        self._owners = owners
        self._later = later
        self._clock = clock
        self._most = most
        self._max_rank = max_rank
        self._runs: dict[str, Run] = {}

    async def load(self) -> None:
        """Read them all from the catalogue."""
        self._runs = {run.id: run for run in await self._store.runs()}

    def planned(
        self,
        caller: Caller,
        spec: PolicySpec,
        told: Described,
        *,
        model: str,
        checkpoint: str,
    ) -> Run:
        """A run of the caller's as it will be; ``model`` is the served name of its base model.

        Raises:
            ConfigError: its adapters have too high a rank.
            DataError: the id cannot be one.
        """
        if spec.lora is not None and spec.lora.rank > self._max_rank:
            raise ConfigError(f"lora.rank is {spec.lora.rank}, and this service trains ranks up to {self._max_rank}")
        now = self._clock()
        return Run(
            id=new_id("run") if told.run_id is None else checked("the id", told.run_id),
            tenant=caller.tenant,
            name=told.name,
            model=model,
            spec=spec,
            state="active",
            created_at=now,
            changed_at=now,
            metadata=dict(told.metadata),
            session=told.session,
            checkpoint=checkpoint,
        )

    async def open(self, run: Run, call: Create | Load) -> Promise:
        """Begin a run; the same id and call again are the same promise.

        Raises:
            BusyError: there are as many as there may be, or no memory is free.
            ModelError: it would not fit into the device's memory.
            SequenceError: the id was used for another call.
            StateError: it was, and that run is over; or the id is another tenant's.
            StorageError: the catalogue or the journal cannot be written.
        """
        if run.id not in self._runs:
            await self._check_room(run)
        before = self._runs.get(run.id)  # another request for it may have come in the meantime
        if before is None:
            self._runs[run.id] = run
            try:
                await self._store.put_run(run)
            except BaseException:
                del self._runs[run.id]
                raise
        elif before.tenant != run.tenant:
            raise StateError(f"the id {run.id} is taken: choose another")
        elif before.state in ("completed", "failed"):
            raise StateError(f"the run {run.id} is {before.state}: choose another id")
        promise = self._broker.open(run.id, call, tenant=run.tenant)
        promise.when_done(partial(self._note_failure, run.id))
        return promise

    def run(self, caller: Caller, run_id: str) -> Run:
        """The caller's run of that id.

        Raises:
            NotFoundError: the caller has none.
        """
        return self._owners.find("run", self._runs, run_id, caller)

    def find(self, run_id: str) -> Run | None:
        """The run of that id, whoever's it is."""
        return self._runs.get(run_id)

    def of(self, tenant: str) -> list[Run]:
        """A tenant's runs, newest first."""
        return sorted((run for run in self._runs.values() if run.tenant == tenant), key=_newest_first, reverse=True)

    def of_session(self, session: str) -> Iterable[Run]:
        """The runs that a session began."""
        return [run for run in self._runs.values() if session and run.session == session]

    def standing_on(self, address: str) -> Run | None:
        """A run that goes on with a checkpoint, by its address, in the place of a base model."""
        alive = (run for run in self._runs.values() if run.state in ("active", "paused"))
        return next((run for run in alive if run.spec.model == address), None)

    def check_worked_on(self, run: Run) -> None:
        """Refuse work for a run that is not active.

        Raises:
            StateError: it is not.
        """
        if run.state != "active":
            why = f" ({run.reason})" if run.reason else ""
            mend = "resume it first" if run.state == "paused" else "begin another, from one of its checkpoints"
            raise StateError(f"the run {run.id} is {run.state}{why}: {mend}")

    async def set_state(self, run: Run, state: RunState, *, reason: str = "") -> Run:
        """Move a run to another state; to the one that it is in, nothing happens.

        Raises:
            StateError: it cannot go there.
            StorageError: the catalogue cannot be written, and nothing has changed.
        """
        if run.state == state:
            return run
        if state not in MOVES[run.state]:
            raise StateError(f"the run {run.id} is {run.state}, and cannot become {state}")
        moved = replace(run, state=state, reason=reason, changed_at=self._clock())
        await self._store.put_run(moved)
        self._runs[run.id] = moved
        with suppress(NotFoundError):  # its policy was never made, or is gone already
            await self._settle(moved)
        return moved

    async def rest(self, run: Run) -> None:
        """Give a run's memory back until it is worked on again."""
        with suppress(NotFoundError):
            await self._broker.park(run.id)

    def ended(self, run_id: str, state: RunState, reason: str = "") -> None:
        """Note that a run has come to its end by what was done to its policy."""
        run = self._runs.get(run_id)
        if run is not None and state in MOVES[run.state]:
            self._runs[run_id] = replace(run, state=state, reason=reason, changed_at=self._clock())
            self._later.post(partial(self._store.put_run, self._runs[run_id]))

    async def _settle(self, run: Run) -> None:
        if run.state == "paused":
            await self._broker.park(run.id)
        elif run.state in ("completed", "failed"):
            incarnation = await self._broker.attach(run.id)
            await self._broker.submit(run.id, incarnation, 0, Close()).result()

    def _note_failure(self, run_id: str, promise: Promise) -> None:
        if isinstance(promise.answer, FettleError):
            self.ended(run_id, "failed", promise.answer.message)

    async def _check_room(self, run: Run) -> None:
        policies = self._broker.policies().items()
        in_memory = [self._runs[name] for name, info in policies if not info.parked and name in self._runs]
        own = sum(other.tenant == run.tenant for other in in_memory)
        if own >= self._most:
            raise BusyError(
                f"{own} of your runs are in memory here, and there may be {self._most}: pause or complete one",
                ROOM_AGAIN_S,
            )
        others = [_of_base(other) for other in in_memory]
        await self._room.check(_of_base(run), others)


def _of_base(run: Run) -> PolicySpec:
    """A run's spec with its base model's name: what began from a checkpoint is as large as what began from that."""
    return run.spec.model_copy(update={"model": run.model})


def _newest_first(run: Run) -> tuple[object, str]:
    return run.created_at, run.id
