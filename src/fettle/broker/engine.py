"""An ``Engine`` over any backend: order, exactly-once, a thread or two, and batches."""

import itertools
import re
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, TypeVar

from fettle.broker.admission import Admission
from fettle.broker.calls import carried_out
from fettle.broker.draws import Draws
from fettle.broker.ledger import Asked, Ledger
from fettle.broker.oplog import Due, OpLog, never_due
from fettle.broker.pins import Pins
from fettle.broker.policies import BrokerPolicy, Doors, PolicyInfo
from fettle.broker.promises import Promise, bytes_of, digest_of, open_id, operation_id, words_of
from fettle.broker.samplers import BrokerSampler, Draw, Drawing, Drawn, apart, model_alone
from fettle.broker.schedule import Gatherer, WaitingRoom, Worker
from fettle.calls import Call, Create, Load
from fettle.config import JournalSettings, PolicySpec, Scheduling
from fettle.engine.base import Backend, Capabilities, SampleRequest
from fettle.errors import CancelledError, ConfigError, NotFoundError, SequenceError

Result = TypeVar("Result")

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,199}")
"""A policy's name, which is also a folder's."""

IN_PROCESS = Scheduling()
"""How loops of one process share an engine."""


class Broker:
    """Satisfies ``Engine``. ``open``, ``submit`` and ``draw`` are its doors for callers that bring names of their own.

    A backend that samples beside training gets a thread for each, and all but ``sample`` is called on the first.
    """

    def __init__(self, backend: Backend, *, scheduling: Scheduling = IN_PROCESS) -> None:
        self._backend = backend
        self._worker = Worker(quantum=scheduling.quantum_tokens)
        beside = backend.capabilities().sampling_beside
        self._drawing = Worker(quantum=scheduling.quantum_tokens) if beside else self._worker
        self._admission = Admission(scheduling)
        self._logs: dict[str, OpLog] = {}
        self._names = itertools.count()
        self._pins = Pins(self._unpin, lambda policy: None)
        self._gathered = self._gathering(scheduling)
        self._ledger = Ledger(JournalSettings(), self._admission, cancelled=self._cancelled, forgotten=self._forgotten)
        self._draws = Draws(self._ledger, self._pins, self._gathered, self._answered)

    def policies(self) -> Mapping[str, PolicyInfo]:
        """Those that are open, by name."""
        return MappingProxyType({name: _info(log) for name, log in self._logs.items() if not log.closed})

    def open(self, name: str, call: Create | Load, *, tenant: str = "") -> Promise:
        """Make a policy of that name; the same name and call again, the same promise.

        Raises:
            ConfigError: this cannot be a name.
            SequenceError: the name was used for something else.
            BusyError: too much waits already.
        """
        if (log := self._logs.get(name)) is not None:
            if log.call != call:
                raise SequenceError(f"the policy {name} was opened before by another call: take another name")
            return log.opening
        if not NAME.fullmatch(name):
            raise ConfigError(f"a policy cannot be called {name!r}: use letters, digits, and _ . : - within")
        promise = self._ledger.take_in(_asked(open_id(name), name, tenant, call, None))
        self._logs[name] = log = OpLog(name, promise, call, tenant=tenant)
        self._carry_out(log, Due(promise, lambda: call))
        return promise

    def submit(self, policy: str, incarnation: int, seq: int, call: Call, *, digest: str | None = None) -> Promise:
        """Take in one numbered operation of a policy; the same operation again gets the same promise.

        ``digest`` is a hash of everything the call says, by which the operation is known again; one of our own is
        taken where none is given.

        Raises:
            NotFoundError: there is no such policy.
            SequenceError: see :meth:`OpLog.known`.
            BusyError: too much waits already.
        """
        log = self._logs.get(policy)
        if log is None:
            raise _unknown(policy)
        known = log.known(incarnation, seq, digest or digest_of(call))
        if known is not None:
            return known
        if log.closed:
            raise _unknown(policy)
        promise = self._ledger.take_in(_asked(operation_id(policy, incarnation, seq), policy, log.tenant, call, digest))
        if promise.kind == "pin":
            self._pins.add(promise)
        for due in log.take_in(seq, promise, lambda: call):
            self._carry_out(log, due)
        return promise

    async def attach(self, policy: str) -> int:
        """Take a policy over: older holders are shut out. Returns the new incarnation, whose numbers begin at 0.

        Raises:
            NotFoundError: there is no such policy.
        """
        log = self._logs.get(policy)
        if log is None or log.closed:
            raise _unknown(policy)
        for stranded in log.fence(log.incarnation + 1):
            self._answered(stranded, never_due(stranded))
        return log.incarnation

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
        if self._ledger.find(key) is None and _names_operation(sampler, self._logs):
            self._pins.known(sampler)
        return self._draws.draw(key, sampler, requests, tenant=tenant, digest=digest)

    def promise(self, id: str) -> Promise:
        """The promise of that id.

        Raises:
            NotFoundError: it was acknowledged, grew too old, or was never given.
        """
        return self._ledger.known(id)

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

    def release(self, pin: str) -> None:
        """Let pinned weights go once nothing is under way with them."""
        self._pins.release(pin)

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
        waiting = self._admission.waiting
        return {
            "operations_waiting": waiting.operations,
            "draws_waiting": waiting.draws,
            "tokens_waiting": waiting.tokens,
            "bytes_waiting": waiting.nbytes,
            "policies": sum(not log.closed for log in self._logs.values()),
            "pins": len(self._pins),
            "calls": self._ledger.taken,
            "answers_bytes": self._ledger.answers_bytes,
        }

    async def drained(self) -> None:
        """Return once nothing is under way or waiting."""
        await self._ledger.drained()

    def close(self) -> None:
        """Finish what is queued and end the threads."""
        self._drawing.close()
        self._worker.close()

    def _carry_out(self, log: OpLog, due: Due) -> None:
        promise = due.promise

        def work() -> Any:
            if not promise.taken():
                raise CancelledError(f"operation {promise.id} was cancelled before it began")
            started = time.perf_counter()
            try:
                return carried_out(self._backend, log.name, promise.id, due.call())
            finally:
                promise.seconds = time.perf_counter() - started

        done = self._worker.start(work, flow=log.tenant, cost=max(1, promise.tokens))
        done.add_done_callback(lambda done: self._answered(promise, done.exception() or done.result()))

    def _answered(self, promise: Promise, answer: object) -> None:
        if promise.done:
            return
        log = self._logs.get(promise.policy)
        if log is not None:
            log.note(promise, answer)
        self._ledger.answer(promise, answer)
        if promise.kind == "pin":
            self._pins.settled(promise, failed=isinstance(answer, BaseException))
        if log is not None and log.closed:
            self._pins.close(log.name)
            self._drop_if_over(log)

    def _cancelled(self, promise: Promise) -> bool:
        if promise.policy and not promise.taken():
            return False
        if not promise.policy:
            self._draws.cancel(promise)
        self._answered(promise, CancelledError(f"{promise.kind} {promise.id} was cancelled"))
        return True

    def _forgotten(self, promise: Promise) -> None:
        log = self._logs.get(promise.policy)
        if log is not None and promise is not log.opening:
            log.forget(promise)
            self._drop_if_over(log)

    def _drop_if_over(self, log: OpLog) -> None:
        """Forget a policy that is closed and of which nobody can ask anything more."""
        if log.closed and not log.promises and log.opening.acknowledged:
            self._logs.pop(log.name, None)

    def _unpin(self, pin: str) -> None:
        """After what is being drawn with it."""
        unpin: Callable[[], object] = partial(self._backend.unpin, pin)
        if self._drawing is not self._worker:
            unpin = partial(self._worker.post, unpin)
        self._drawing.post(unpin)

    def _sampler(self, weights: str, held: Any, version: int) -> BrokerSampler:
        return BrokerSampler(self._backend, self._worker, self._gathered, weights, held, version=version)

    async def _opened(self, call: Create | Load, name: str | None, tenant: str) -> BrokerPolicy:
        name = name or next(free for i in self._names if (free := f"policy-{i}") not in self._logs)
        promise = self.open(name, call, tenant=tenant)
        promise.acknowledge()
        await promise.result()
        doors = Doors(self.submit, self.pinned, self.release)
        return BrokerPolicy(doors, name, self._logs[name].incarnation)

    def _gathering(self, scheduling: Scheduling) -> Drawing:
        if scheduling.gather == "turn":
            return Gatherer(self._drawing, self._drawn)
        room: WaitingRoom[Draw, Drawn] = WaitingRoom(
            self._drawing,
            self._drawn,
            budget=scheduling.gather_tokens,
            quantum=scheduling.quantum_tokens,
            spent=lambda draw, drawn: sum(len(completion.tokens) for completion in drawn.completions),
        )
        return lambda draw: room(draw, tenant=draw.tenant, cost=draw.tokens)

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


def _asked(id: str, policy: str, tenant: str, call: Call, digest: str | None) -> Asked:
    kind, tokens = words_of(call)
    return Asked(id, policy, tenant, kind, tokens, bytes_of(call), digest or digest_of(call))


def _info(log: OpLog) -> PolicyInfo:
    spec = log.call.spec if isinstance(log.call, Create) else None
    return PolicyInfo(log.name, spec, log.tenant, log.incarnation, log.next_seq, log.version, parked=False)


def _unknown(policy: str) -> NotFoundError:
    return NotFoundError(f"there is no policy {policy!r} here: it was closed, or never made")


def _names_operation(id: str, logs: Mapping[str, OpLog]) -> bool:
    policy, *numbers = id.rsplit(".", 2)
    return policy in logs and len(numbers) == 2 and all(number.isdigit() for number in numbers)
