"""Runs: who owns them, what state they are in, and how they begin and end."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from weakref import WeakValueDictionary

from fettle.broker import Broker, Promise
from fettle.broker.promises import open_id
from fettle.calls import Close, Create, Load
from fettle.config import PolicySpec
from fettle.errors import BusyError, ConfigError, FettleError, NotFoundError, StateError
from fettle.service.callers import Caller
from fettle.service.capacity import Room
from fettle.service.clock import Clock
from fettle.service.entries import Run, RunState
from fettle.service.goingon import GoingOn
from fettle.service.idleness import Idleness
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

OVER = frozenset({"completed", "failed"})
"""States that nothing leads out of."""

ROOM_AGAIN_S = 30.0
"""After which it is worth asking again for a run beyond the most there may be."""
RESTED_S = 20.0
"""How long a run may take to give its memory back, before it is taken to be in use after all."""


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
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._entering = asyncio.Lock()
        self._going_on = GoingOn()
        self.idleness = Idleness(clock)

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
        checkpoint: str = "",
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
        async with self._turn(run.id):
            before = self._runs.get(run.id)
            if before is None:
                return await self._entered(run, call)
            if before.tenant != run.tenant:
                raise StateError(f"the id {run.id} is taken: choose another")
            if before.state in OVER:
                raise StateError(f"the run {run.id} is {before.state}: choose another id")
            return self._broker.open(run.id, call, tenant=run.tenant)

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
        policies = self._broker.policies()
        alive = (run for run in self._runs.values() if run.state not in OVER or run.id in policies)
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
        """Move a run to another state; to the one that it is in, what that asks of its policy is made sure of.

        Raises:
            StateError: it cannot go there.
            StorageError: the catalogue cannot be written, and nothing has changed.
        """
        moved = await self._moved(run.id, state, reason)
        if state == "paused":
            with suppress(NotFoundError):  # its policy was never made
                await self._broker.park(run.id)
        elif state in OVER:
            await asyncio.shield(self._closing(run.id))
        return moved

    async def pause(self, run: Run, reason: str) -> None:
        """Pause a run, and have its memory given back without waiting for it."""
        self.rest(await self._moved(run.id, "paused", reason))

    def rest(self, run: Run) -> None:
        """Have a run's memory given back until it is worked on again."""
        self._going_on.begin(f"rest {run.id}", partial(self._broker.park, run.id))

    def answered(self, promise: Promise) -> None:
        """Take note of a run that came to its end, or did not come about."""
        failed = isinstance(promise.answer, FettleError)
        if promise.kind in ("create", "load") and failed:
            self.ended(promise.policy, "failed", promise.answer.message)
        elif promise.kind == "close" and not failed:
            self.ended(promise.policy, "completed")

    def ended(self, run_id: str, state: RunState, reason: str = "") -> None:
        """Note that a run has come to its end by what was done to its policy."""
        run = self._runs.get(run_id)
        if run is not None and state in MOVES[run.state]:
            self._runs[run_id] = replace(run, state=state, reason=reason, changed_at=self._clock())
            self.idleness.forget(run_id)
            self._later.post(partial(self._write, run_id))

    def reconcile(self, has_worked: Callable[[str], bool]) -> None:
        """Have runs and their policies stand alike, which a process that was killed in between may not have done."""
        policies = self._broker.policies()
        for run in list(self._runs.values()):
            if run.id not in policies and run.state not in OVER:
                self._reconcile_without_policy(run.id, has_worked)
            elif run.id in policies and run.state in OVER:
                self._closing(run.id)
            elif run.state == "paused" and not policies[run.id].parked:
                self.rest(run)

    def close_again(self) -> None:
        """Have policies closed of runs that are over and could not be closed before."""
        for run_id in self._broker.policies():
            if run_id in self._runs and self._runs[run_id].state in OVER:
                self._going_on.attempt(f"close {run_id}", partial(self._close, run_id))

    async def close(self, *, patience_s: float) -> None:
        """End what goes on beside, up to a limit."""
        await self._going_on.close(patience_s=patience_s)

    def _reconcile_without_policy(self, run_id: str, has_worked: Callable[[str], bool]) -> None:
        try:
            opening = self._broker.promise(open_id(run_id))
        except NotFoundError:
            if has_worked(run_id):
                self.ended(run_id, "completed")
            else:  # the process ended before the policy was asked for, and nobody was told of the run
                self._take_back(run_id)
            return
        if isinstance(opening.answer, FettleError):
            self.ended(run_id, "failed", opening.answer.message)
        else:
            self.ended(run_id, "completed")

    def _turn(self, run_id: str) -> asyncio.Lock:
        """Whose holder alone changes what the catalogue says of a run."""
        return self._turns.setdefault(run_id, asyncio.Lock())

    async def _moved(self, run_id: str, state: RunState, reason: str) -> Run:
        async with self._turn(run_id):
            run = self._runs[run_id]
            if run.state == state:
                return run
            if state not in MOVES[run.state]:
                raise StateError(f"the run {run_id} is {run.state}, and cannot become {state}")
            moved = replace(run, state=state, reason=reason, changed_at=self._clock())
            await self._store.put_run(moved)
            if self._runs[run_id] is run:  # and did not come to its end meanwhile, which is written next
                self._runs[run_id] = moved
            return self._runs[run_id]

    def _closing(self, run_id: str) -> "asyncio.Task[None]":
        """The task that closes a run's policy; asked for again, the same one until it is done."""
        self.idleness.forget(run_id)
        return self._going_on.begin(f"close {run_id}", partial(self._close, run_id))

    async def _close(self, run_id: str) -> None:
        incarnation = await self._broker.attach(run_id)
        await self._broker.submit(run_id, incarnation, 0, Close()).result()

    async def _write(self, run_id: str) -> None:
        async with self._turn(run_id):
            await self._store.put_run(self._runs[run_id])

    async def _entered(self, run: Run, call: Create | Load) -> Promise:
        """The promise of a run that is new."""
        async with self._entering:  # whoever comes next finds this one beside the others
            await self._make_room(run)
            await self._put_first(run)
            try:
                return self._broker.open(run.id, call, tenant=run.tenant)
            except FettleError:
                self._take_back(run.id)
                raise

    async def _put_first(self, run: Run) -> None:
        self._runs[run.id] = run
        try:
            await self._store.put_run(run)
        except BaseException:
            del self._runs[run.id]
            raise

    def _take_back(self, run_id: str) -> None:
        """Forget a run that came to nothing."""
        del self._runs[run_id]
        self._later.post(partial(self._remove, run_id))

    async def _remove(self, run_id: str) -> None:
        async with self._turn(run_id):
            if run_id not in self._runs:  # nobody has asked for it again
                await self._store.remove_run(run_id)

    async def _make_room(self, run: Run) -> None:
        """Room for one more run, in its tenant's share and on the device, for which idle ones give theirs back."""
        wanted = _of_base(run)

        async def among_own(own: list[Run]) -> None:
            if len(own) >= self._most:
                raise BusyError(
                    f"{len(own)} of your runs are in memory here, and there may be {self._most}: pause or complete one",
                    ROOM_AGAIN_S,
                )
            await self._room.check_share(wanted, map(_of_base, own))

        async def among_all(others: list[Run]) -> None:
            await self._room.check(wanted, map(_of_base, others))

        await self._checked(among_own, lambda other: other.tenant == run.tenant)
        await self._checked(among_all, lambda other: True)

    async def _checked(self, check: Callable[[list[Run]], Awaitable[None]], counts: Callable[[Run], bool]) -> None:
        """Hold what is in memory against a limit, with ever fewer idle runs, until it holds or none is left."""
        tried: set[str] = set()
        while True:
            in_memory = [run for run in self._in_memory() if counts(run)]
            try:
                await check(in_memory)
            except BusyError:
                idle = [id for id in self.idleness.longest(run.id for run in in_memory) if id not in tried]
                if not idle:
                    raise
                tried.add(idle[0])
                self.rest(self._runs[idle[0]])
                await self._going_on.ended(f"rest {idle[0]}", within_s=RESTED_S)
            else:
                return

    def _in_memory(self) -> list[Run]:
        policies = self._broker.policies().items()
        return [self._runs[name] for name, info in policies if not info.parked and name in self._runs]


def _of_base(run: Run) -> PolicySpec:
    """A run's spec with its base model's name: what began from a checkpoint is as large as what began from that."""
    return run.spec.model_copy(update={"model": run.model})


def _newest_first(run: Run) -> tuple[object, str]:
    return run.created_at, run.id
