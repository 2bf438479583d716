"""An ``Engine`` over any backend: order, exactly-once, a thread or two, and batches."""

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from fettle.broker.admission import Admission
from fettle.broker.desk import Desk
from fettle.broker.draws import Draws
from fettle.broker.journal import Journal
from fettle.broker.oplog import OpLog, origin
from fettle.broker.past import FORMAT, past_of
from fettle.broker.policies import BrokerPolicy, Doors, Policies, PolicyInfo
from fettle.broker.promises import Promise
from fettle.broker.recovery import Recovery
from fettle.broker.samplers import BrokerSampler, Draw, Drawing, Drawn, Held, apart, model_alone
from fettle.broker.schedule import Gatherer, WaitingRoom, Worker
from fettle.calls import Call, Create, Load
from fettle.config import JournalSettings, PolicySpec, Scheduling
from fettle.engine.base import Backend, Capabilities, SampleRequest
from fettle.errors import FettleError, StorageError

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

IN_PROCESS = Scheduling()
"""How loops of one process share an engine."""


class Broker:
    """Satisfies ``Engine``. ``open``, ``submit`` and ``draw`` are its doors for callers that bring names of their own.

    A backend that samples beside training gets a thread for each, and all but ``sample`` is called on the first.
    """

    def __init__(
        self, backend: Backend, *, journal: Journal | None = None, scheduling: Scheduling = IN_PROCESS
    ) -> None:
        self._backend = backend
        self._worker = Worker(quantum=scheduling.quantum_tokens)
        beside = backend.capabilities().sampling_beside
        self._drawing = Worker(quantum=scheduling.quantum_tokens) if beside else self._worker
        self._admission = Admission(scheduling)
        self._journal = journal
        self._names = itertools.count()
        self._desk = Desk(
            backend,
            self._worker,
            self._admission,
            journal=journal,
            unpin=self._unpin,
            stop_drawing=lambda promise: self._draws.cancel(promise),
        )
        self._ledger, self._pins = self._desk.ledger, self._desk.pins
        self._gathered = self._gathering(scheduling)
        self._draws = Draws(self._ledger, self._pins, self._gathered)

    @classmethod
    async def recovered(
        cls, backend: Backend, folder: Path, settings: JournalSettings, scheduling: Scheduling = IN_PROCESS
    ) -> "Broker":
        """A broker that goes on where the journal in ``folder`` ends, which is made if it is not there.

        Raises:
            StorageError: the folder cannot be written, another process holds it, or a file of the journal is damaged.
        """
        told = backend.capabilities()
        head = {"record": "head", "format": FORMAT, "threads": told.threads, "device": told.device}
        journal = Journal(folder, settings, head=head)
        broker = None
        try:
            past = past_of(journal.past())
            if past.threads not in (0, told.threads):
                logger.warning(
                    "the journal was written with %d threads of arithmetic, and there are %d now: bits may differ",
                    past.threads,
                    told.threads,
                )
            journal.begin()
            broker = cls(backend, journal=journal, scheduling=scheduling)
            await Recovery(broker._desk, broker._draws, broker._worker, journal, past).run()
        except FettleError:
            if broker is not None:
                broker.close()
            journal.close()
            raise
        return broker

    def policies(self) -> Mapping[str, PolicyInfo]:
        """Those that are open, by name."""
        return Policies(self._desk.logs)

    def open(self, name: str, call: Create | Load, *, tenant: str = "") -> Promise:
        """Make a policy of that name; the same name and call again, the same promise.

        Raises:
            ConfigError: this cannot be a name.
            SequenceError: the name was used for something else.
            BusyError: too much waits already.
            StorageError: the journal cannot be written.
        """
        return self._desk.open(name, call, tenant)

    def submit(self, policy: str, incarnation: int, seq: int, call: Call, *, digest: str | None = None) -> Promise:
        """Take in one numbered operation of a policy; the same operation again gets the same promise.

        ``digest`` is a hash of everything the call says, by which the operation is known again; one of our own is
        taken where none is given.

        Raises:
            NotFoundError: there is no such policy.
            SequenceError: see :meth:`OpLog.known`.
            BusyError: too much waits already.
            StorageError: the journal cannot be written.
        """
        return self._desk.submit(policy, incarnation, seq, call, digest)

    async def attach(self, policy: str) -> int:
        """Take a policy over: older holders are shut out. Returns the new incarnation, whose numbers begin at 0.

        Raises:
            NotFoundError: there is no such policy.
            StorageError: the journal cannot be written.
        """
        incarnation = self._desk.attach(policy)
        if self._journal is not None:
            await self._journal.durable(self._journal.position)
        return incarnation

    def draw(
        self,
        key: str,
        sampler: str,
        requests: Sequence[SampleRequest],
        *,
        tenant: str = "",
        digest: str | None = None,
    ) -> Promise:
        """Draw from a pin (by its promise's id), a model or a checkpoint; request after request in one list.

        The same key again gets the same promise.

        Raises:
            NotFoundError: the pin was let go.
            SequenceError: the key was used for something else.
            BusyError: too much waits already.
        """
        if self._ledger.find(key) is None and _names_operation(sampler, self._desk.logs):
            self._desk.log(self._pins.known(sampler).policy)
        return self._draws.draw(key, sampler, requests, tenant=tenant, digest=digest)

    def promise(self, id: str) -> Promise:
        """The promise of that id.

        Raises:
            NotFoundError: it was acknowledged, grew too old, or was never given.
        """
        return self._ledger.known(id)

    def when_answered(self, told: Callable[[Promise], object]) -> None:
        """Have ``told`` called on the event loop for every promise that this broker answers.

        Those that it took up from an earlier process are among them, even if they were answered before this is called;
        those that were answered by the earlier one are not.
        """
        self._ledger.when_answered(told)

    def pinned(self, pin: str) -> BrokerSampler:
        """A sampler of pinned weights, by the id of the pin's promise, whose result may still be to come.

        Raises:
            NotFoundError: the pin was let go, or never made.
        """
        promise = self._pins.known(pin).promise
        sampler = self._sampler(pin, partial(self._pins.held, pin), 0)

        def told(done: Promise) -> None:
            if isinstance(done.answer, int):
                sampler.policy_version = done.answer

        if promise.done:
            told(promise)
        else:
            promise.when_done(told)
        return sampler

    def pins(self) -> Mapping[str, str]:
        """Those that were not released, by the ids of their promises, each with the policy that it is of."""
        return {pin.promise.id: pin.policy for pin in self._pins if not pin.released}

    def newest_pin(self, policy: str) -> str | None:
        """The id of the pin of a policy that was asked for last and is kept, if there is one."""
        kept = [pin.promise.id for pin in self._pins.of(policy) if not pin.released]
        return kept[-1] if kept else None

    def release(self, pin: str) -> None:
        """Let pinned weights go once nothing is under way with them."""
        self._desk.release(pin)

    async def park(self, policy: str) -> None:
        """Write a policy down and give its memory back; its next operation, or draw, brings it back.

        It is first waited for that nothing is under way with it; operations before which others are missing wait on.
        One that is wanted again meanwhile stays.

        Raises:
            NotFoundError: there is no such policy.
            ConfigError: this broker has no journal.
            StorageError: it could not be written down, and stays in memory.
        """
        await self._desk.park(policy)

    async def written_down(self, policy: str) -> None:
        """Return once the policy is on the disk with all that was submitted to it and whose turn has come.

        It then hangs on no checkpoint that it was made of. Without a journal there is nothing to wait for.

        Raises:
            NotFoundError: there is no such policy.
            StorageError: it could not be written down.
        """
        await self._desk.written_down(policy)

    async def written_down_without(self, source: str) -> None:
        """Return once no policy hangs on a checkpoint's folder any longer, but for those that it is the base model of.

        Raises:
            StorageError: one that does could not be written down.
        """
        await self._desk.written_down_without(source)

    def made_of(self, policy: str) -> str | None:
        """The model or the checkpoint's folder that a policy began from; None where it is not known any more."""
        log = self._desk.logs.get(policy)
        return None if log is None else origin(log.call)

    def under_way(self, policy: str, kind: str) -> bool:
        """Whether a policy has an operation of a kind that is not answered yet."""
        log = self._desk.logs.get(policy)
        return log is not None and any(each.kind == kind and not each.done for each in log.promises.values())

    @property
    def failed(self) -> StorageError | None:
        """Why nothing more is taken in, if the journal has failed."""
        return None if self._journal is None else self._journal.failed

    async def snapshot_all(self) -> None:
        """Have every policy that has worked since written down, so that a restart has nothing to repeat.

        Those that could not be taken up from an earlier process stay as they are written.

        Raises:
            StorageError: one of them could not be; the others were.
        """
        await self._desk.snapshot_all()

    async def create_policy(self, spec: PolicySpec, *, name: str | None = None, tenant: str = "") -> BrokerPolicy:
        """A policy with the weights of ``spec.model``."""
        return await self._opened(Create(spec), name, tenant)

    async def load_policy(
        self, checkpoint: str, *, optimizer: bool, name: str | None = None, tenant: str = ""
    ) -> BrokerPolicy:
        """A policy as it was saved."""
        return await self._opened(Load(checkpoint, optimizer), name, tenant)

    async def sampler(self, weights: str) -> BrokerSampler:
        """A sampler of a model or of a saved checkpoint."""
        version = await self._worker.run(lambda: self._backend.open(weights))
        return self._sampler(weights, partial(model_alone, weights), version)

    def unopened(self, weights: str, version: int) -> BrokerSampler:
        """The same of weights whose version is known; they are loaded when they are first drawn from."""
        return self._sampler(weights, partial(model_alone, weights), version)

    async def capabilities(self) -> Capabilities:
        """What the backend can do."""
        return await self._worker.run(self._backend.capabilities)

    async def statistics(self) -> Mapping[str, float]:
        """How the backend is doing."""
        return await self._worker.run(self._backend.statistics)

    async def run(self, call: Callable[[], Result]) -> Result:
        """One call on the backend's thread."""
        return await self._worker.run(call)

    def counts(self) -> Mapping[str, float]:
        """What waits, what is held, and how much was taken in, by name."""
        waiting, journal = self._admission.waiting, self._journal
        return {
            "operations_waiting": waiting.operations,
            "draws_waiting": waiting.draws,
            "tokens_waiting": waiting.tokens,
            "bytes_waiting": waiting.nbytes,
            "policies": len(self.policies()),
            "pins": len(self._pins),
            "calls": self._ledger.taken,
            "answers_bytes": self._ledger.answers_bytes,
            "journal_bytes": 0 if journal is None else journal.nbytes,
            "journal_unsynced_seconds": 0.0 if journal is None else journal.unsynced_seconds,
        }

    async def drained(self) -> None:
        """Return once nothing is under way or waiting, but for operations before which others are missing."""
        await self._ledger.drained(self._desk.out_of_turn)

    def close(self) -> None:
        """Finish what is queued and end the threads; what is answered from here on is repeated after a restart."""
        self._drawing.close()
        self._worker.close()
        self._desk.close()

    def _unpin(self, pin: str) -> None:
        """After what is being drawn with it."""
        unpin: Callable[[], object] = partial(self._backend.unpin, pin)
        if self._drawing is not self._worker:
            unpin = partial(self._worker.post, unpin)
        self._drawing.post(unpin)

    def _sampler(self, weights: str, held: Held, version: int) -> BrokerSampler:
        return BrokerSampler(self._backend, self._worker, self._gathered, weights, held, version=version)

    async def _opened(self, call: Create | Load, name: str | None, tenant: str) -> BrokerPolicy:
        name = name or next(free for i in self._names if (free := f"policy-{i}") not in self._desk.logs)
        promise = self.open(name, call, tenant=tenant)
        promise.acknowledge()
        await promise.result()
        doors = Doors(self.submit, self.pinned, self.release)
        return BrokerPolicy(doors, name, self._desk.logs[name].incarnation)

    def _gathering(self, scheduling: Scheduling) -> Drawing:
        if scheduling.gather == "turn":
            gatherer: Gatherer[Draw, Drawn] = Gatherer(self._drawing, self._drawn)
            return lambda draws: asyncio.gather(*map(gatherer, draws))
        room: WaitingRoom[Draw, Drawn] = WaitingRoom(
            self._drawing,
            self._drawn,
            budget=scheduling.gather_tokens,
            quantum=scheduling.quantum_tokens,
            spent=lambda draw, drawn: sum(len(completion.tokens) for completion in drawn.completions),
        )
        return lambda draws: asyncio.gather(
            *room.start_all(draws, tenant=draws[0].tenant, costs=[draw.tokens for draw in draws])
        )

    def _drawn(self, calls: Sequence[Draw]) -> list[Drawn]:
        """Samplers of several policies share a batch, and those of one policy have each their own."""
        found: dict[int, Drawn] = {}
        for places in apart(calls):
            batch = [calls[place] for place in places]
            started = time.perf_counter()
            drawn = self._backend.sample([call.weights for call in batch], [call.request for call in batch])
            share = (time.perf_counter() - started) / max(1, sum(len(c.tokens) for each in drawn for c in each))
            for place, completions in zip(places, drawn, strict=True):
                found[place] = Drawn(completions, share * sum(len(c.tokens) for c in completions))
        return [found[place] for place in range(len(calls))]


def _names_operation(id: str, logs: Mapping[str, OpLog]) -> bool:
    policy, *numbers = id.rsplit(".", 2)
    return policy in logs and len(numbers) == 2 and all(number.isdigit() for number in numbers)
