"""A broker made anew from its journal: every policy to the bit, every answer that is still wanted."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

from fettle.broker.desk import Desk
from fettle.broker.draws import Draws, requests_of
from fettle.broker.journal import Journal, Place
from fettle.broker.ledger import Asked
from fettle.broker.oplog import Due, OpLog, never_due
from fettle.broker.past import Past, PastAnswer, PastCall, PastPolicy
from fettle.broker.promises import Promise, open_id, order_of
from fettle.broker.revival import in_turn
from fettle.broker.schedule import Outcome, Worker
from fettle.broker.snapshots import Snapshots
from fettle.broker.written import Order
from fettle.calls import call_of
from fettle.engine.base import SampleRequest
from fettle.errors import StorageError
from fettle.frames import Tree, result_of, unpacked

logger = logging.getLogger(__name__)


class _Step(NamedTuple):
    """Something to be queued, in the order in which calls were taken in."""

    place: Place
    queue: Callable[[], "asyncio.Future[Any] | None"]


class Recovery:
    """Takes up what an earlier process left."""

    def __init__(self, desk: Desk, draws: Draws, worker: Worker, journal: Journal, past: Past) -> None:
        self._desk = desk
        self._draws = draws
        self._worker = worker
        self._journal = journal
        self._past = past
        self._snapshots = _snapshots_of(desk)
        self._repeated: list[asyncio.Future[Any]] = []

    async def run(self) -> None:
        """Return once everything that was answered has been repeated; what was not goes on by itself.

        A policy that cannot be taken up again is left as it is written, and answers nothing.
        """
        started = time.perf_counter()
        steps = [step for name, policy in self._past.policies.items() for step in self._policy(name, policy)]
        draws = self._take_up_draws()  # before anything is answered, so that nothing is taken for forgotten
        self._snapshots.sweep(self._desk.logs.values())
        for step in sorted(steps, key=lambda step: step.place):
            if (repeated := step.queue()) is not None:
                self._repeated.append(repeated)
        await asyncio.gather(*self._repeated)
        for begin in draws:
            begin()
        for pin in self._past.released:
            self._desk.pins.release(pin)
        self._desk.compact_from_now_on()
        logger.info(
            "recovered %d policies: %d operations were repeated in %.2f s",
            sum(not policy.closed for policy in self._past.policies.values()),
            len(self._repeated),
            time.perf_counter() - started,
        )

    def _policy(self, name: str, past: PastPolicy) -> Iterator[_Step]:
        """Everything of one policy."""
        log = self._log(name, past)
        for id, answer in self._past.answers.get(name, {}).items():
            if id != log.opening.id and self._wanted(id, answer):
                log.promises[order_of(id)] = self._answered(id, answer)
        operations = self._past.operations.get(name, {})
        answered = {order_of(id) for id in self._past.answers.get(name, {}) if id != log.opening.id}
        turns = in_turn({*operations, *answered, *past.used}, _begin_of(past))
        due = [order for order in turns if order in operations]
        self._use_up(log, past, answered - set(due))
        log.take_up(past.incarnation, _next_seq(past, turns), past.version)
        if past.closed:
            log.closed = True
            return
        for pin, version in past.pins.items():
            if pin not in self._past.released or self._drawn_from(pin):
                self._desk.pins.add(self._pin(pin, name, version))
        latest = min([past.place, *(operations[order].place for order in due)])
        yield _Step(latest, partial(self._begin, log, past, idle=not due))
        for order in due:
            latest = max(latest, operations[order].place)
            yield _Step(latest, partial(self._operation, log, order, operations[order]))
        for order in sorted(operations.keys() - set(due)):
            if order >= _begin_of(past):
                self._stranded(log, past, order, operations[order])

    def _use_up(self, log: OpLog, past: PastPolicy, unrepeated: set[Order]) -> None:
        """Numbers that were answered before it was their turn stay used up."""
        used = {order for order in unrepeated if order >= _begin_of(past)}
        log.written.used = used | past.used
        for order in used:
            log.written.tail.pop(order, None)

    def _log(self, name: str, past: PastPolicy) -> OpLog:
        call = call_of(unpacked(past.call))
        opening = self._promise({**past.said, "id": open_id(name), "kind": "", "tokens": 0, "digest": ""})
        opening.kind = "load" if hasattr(call, "checkpoint") else "create"
        opening.place = past.place
        log = OpLog(name, opening, call, tenant=past.said["tenant"])  # type: ignore[arg-type]
        log.written.place = past.place
        log.written.snapshots = past.snapshots
        operations = self._past.operations.get(name, {})
        log.written.tail = {order: each.place for order, each in operations.items()}
        for order, operation in operations.items():
            if operation.said["kind"] == "restore":
                again = self._snapshots.revival.call_at(operation.place)
                log.take_from(again.checkpoint, order)  # type: ignore[union-attr]
        self._desk.logs[name] = log
        opening.acknowledged = past.acknowledged or opening.id in self._past.acknowledged
        if past.opened is None:
            self._desk.ledger.take_up(opening)
        else:
            opening.seconds, opening.answered_at = past.seconds, past.at
            opening.settle(result_of(past.opened))
            if not opening.acknowledged:
                self._desk.ledger.keep(opening, age=self._past.age(past.at, past.since))
        return log

    def _begin(self, log: OpLog, past: PastPolicy, *, idle: bool) -> "asyncio.Future[Any] | None":
        """Bring a policy back: as it was last written down, or from what it was made of."""
        if past.parked and idle:
            log.written.parked = True
            return None
        if past.snapshots:
            return self._start(log, self._snapshots.revival.taking_back(log, lambda: self._past))
        if past.opened is None:
            self._desk.carry_out(log, Due(log.opening, lambda: log.call))
            return None
        work = partial(self._desk.carried_out, log, log.opening.id, log.call, again=True)
        return self._start(log, work)

    def _start(self, log: OpLog, work: Callable[[], object]) -> "asyncio.Future[Any]":
        """Have the worker do it, unless the policy is lost; if it fails, whatever the reason, the policy is.

        Work that repeats operations comes to the seconds that this took, which are to be repeated from then on.
        """
        snapshots = self._snapshots

        def guarded() -> object:
            if log.name in snapshots.absent:
                return None
            try:
                return work()
            except Exception as error:  # noqa: BLE001  the other policies are taken up all the same
                return snapshots.give_up(log, error)

        def noted(outcome: Outcome) -> None:
            found = outcome.result
            if isinstance(found, StorageError):
                log.lost = log.lost or found
            elif isinstance(found, float):
                snapshots.computed(log, found)

        return self._worker.start(guarded, flow=log.tenant, noted=noted)

    def _operation(self, log: OpLog, order: Order, operation: PastCall) -> "asyncio.Future[Any] | None":
        """Do again what was done, and do what was not."""
        id, answer, revival = operation.said["id"], self._past.answer(operation), self._snapshots.revival
        if answer is None:
            promise = self._under_way(operation)
            log.promises[order] = promise
            if promise.kind == "pin":
                self._desk.pins.add(promise)
                if id in self._past.released and not self._drawn_from(id):
                    self._desk.pins.release(id)
            self._desk.carry_out(log, Due(promise, partial(revival.call_at, operation.place)), again=True)
            return None
        log.written.since += 1
        if not revival.has_effect(operation, answer):
            return None
        return self._start(log, partial(revival.again, log, operation, answer))

    def _stranded(self, log: OpLog, past: PastPolicy, order: Order, operation: PastCall) -> None:
        """An operation before which others are missing."""
        if self._past.answer(operation) is not None:
            return
        promise = self._under_way(operation)
        log.promises[order] = promise
        if order[0] < past.incarnation:
            self._desk.ledger.answer(promise, never_due(promise))
        else:
            self._desk.take_in(log, order[1], promise, partial(self._snapshots.revival.call_at, operation.place))

    def _take_up_draws(self) -> list[Callable[[], None]]:
        """Promises of draws; returns how those that had no answer begin."""
        for id, answer in self._past.answers.get("", {}).items():
            if self._wanted(id, answer):
                self._answered(id, answer)
        begin: list[Callable[[], None]] = []
        for draw in self._past.draws.values():
            if self._past.answer(draw) is None:
                requests = requests_of(self._journal.read(draw.place)["requests"])
                begin.append(partial(self._begin_draw, self._under_way(draw), draw.said["sampler"], requests))
        return begin

    def _begin_draw(self, promise: Promise, sampler: str, requests: list[SampleRequest]) -> None:
        log = self._desk.logs.get(self._desk.pins.known(sampler).policy) if sampler in self._desk.pins else None
        if log is None or log.lost is None:
            self._draws.begin(promise, sampler, requests)
        else:
            promise.withhold(log.lost)

    def _under_way(self, call: PastCall) -> Promise:
        promise = self._promise(call.said)
        promise.place = call.place
        self._desk.ledger.take_up(promise)
        return promise

    def _answered(self, id: str, answer: PastAnswer) -> Promise:
        """A promise whose answer is kept."""
        promise = self._promise(answer.said)
        promise.seconds, promise.answered_at, promise.place = answer.said["seconds"], answer.said["at"], answer.place
        promise.settle(result_of(answer.result))
        self._desk.ledger.keep(promise, age=self._past.age(answer.said["at"], answer.at))
        return promise

    def _wanted(self, id: str, answer: PastAnswer) -> bool:
        old = self._past.age(answer.said["at"], answer.at) > self._journal.settings.answers_seconds
        return answer.said["kept"] and id not in self._past.acknowledged and not old

    def _pin(self, id: str, policy: str, version: int) -> Promise:
        said = {"id": id, "policy": policy, "tenant": "", "kind": "pin", "tokens": 0, "digest": ""}
        promise = self._promise(said)
        promise.settle(version)
        return promise

    def _drawn_from(self, pin: str) -> bool:
        """Whether a draw that is not done needs it."""
        draws = self._past.draws.values()
        return any(draw.said["sampler"] == pin and self._past.answer(draw) is None for draw in draws)

    def _promise(self, said: Tree) -> Promise:
        asked = Asked(said["id"], said["policy"], said["tenant"], said["kind"], said["tokens"], 0, said["digest"])
        return self._desk.ledger.promised(asked)


def _begin_of(past: PastPolicy) -> Order:
    """The first operation that is not in the newest snapshot."""
    return past.snapshots[-1].before if past.snapshots else (0, 0)


def _next_seq(past: PastPolicy, due: list[Order]) -> int:
    """The number that the present holder's next operation has."""
    if due and due[-1][0] == past.incarnation:
        return due[-1][1] + 1
    begin = _begin_of(past)
    return begin[1] if begin[0] == past.incarnation else 0


def _snapshots_of(desk: Desk) -> Snapshots:
    assert desk.snapshots is not None, "a broker that has a journal takes snapshots"
    return desk.snapshots
