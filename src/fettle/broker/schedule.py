"""One worker thread owns the backend; calls queue for it, and those that can share a batch do."""

import asyncio
import logging
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from functools import partial
from queue import SimpleQueue
from threading import Lock, Thread, current_thread
from typing import Any, Generic, NamedTuple, TypeVar

from fettle.broker.turns import Turns
from fettle.config import Scheduling
from fettle.errors import ConfigError, DataError, EngineError, LossInputError, ModelError, NotFoundError

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
Item = TypeVar("Item")

FAULTS_OF_A_CALL = (ConfigError, DataError, LossInputError, ModelError, NotFoundError)
"""What is wrong with what was asked, and will be when it is asked again."""

CLOSED = "this engine was closed: make a new one"

QUANTUM = Scheduling().quantum_tokens
"""Tokens of a turn, where nothing else is said."""

DRAWING = "(draws)"
"""The flow of all draws; no tenant is called so."""


class Outcome(NamedTuple):
    """What a call came to."""

    result: Any = None
    error: BaseException | None = None


class _Queued(NamedTuple):
    """A call that waits for the worker."""

    flow: str
    cost: int
    call: Callable[[], Any]
    tell: Callable[[Outcome], object] | None = None
    """Called on the worker's thread."""
    future: asyncio.Future[Any] | None = None
    """Once this is cancelled, a call that has not begun never does."""
    first: bool = False


class Worker:
    """Runs backend calls one at a time, off the event loop; flows take turns by ``Turns``, a flow runs in order.

    A call that returns a future is over for the worker, and told once that is done.
    """

    def __init__(self, *, quantum: int = QUANTUM) -> None:
        # Calls come through a queue that may be put to at any moment, even by a finalizer within another ``put``.
        self._inbox: SimpleQueue[_Queued | None] = SimpleQueue()
        self._turns: Turns[_Queued] = Turns(quantum)
        thread = Thread(target=_serve, args=(self._inbox, self._turns), name="fettle-engine", daemon=True)
        thread.start()
        self._end = weakref.finalize(self, _finish, self._inbox, thread)

    async def run(self, call: Callable[[], Result], *, flow: str = "", cost: int = 1) -> Result:
        """The call's answer. Its place in the queue is taken before this first waits.

        Raises:
            EngineError: the worker was closed.
        """
        return await self.start(call, flow=flow, cost=cost)

    def start(
        self,
        call: Callable[[], Result],
        *,
        flow: str = "",
        cost: int = 1,
        first: bool = False,
        noted: Callable[[Outcome], object] | None = None,
    ) -> asyncio.Future[Result]:
        """The same, queued before this returns; once the future is cancelled, a call that has not begun never does.

        ``first``: before all that waits in its flow. ``noted`` is called with the outcome as ``hand`` would, before
        whoever waits for the future is told.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        self._queue(_Queued(flow, cost, call, partial(_on_loop, loop, partial(_settle, future, noted)), future, first))
        return future

    def hand(
        self, call: Callable[[], Any], told: Callable[[Outcome], object], *, flow: str = "", cost: int = 1
    ) -> None:
        """Queue a call and have ``told`` called with its outcome, on the event loop that this is called on.

        Outcomes are told in the order in which calls are carried out, but for those that are futures.
        """
        self._queue(_Queued(flow, cost, call, partial(_on_loop, asyncio.get_running_loop(), told)))

    def post(self, call: Callable[[], object], *, flow: str = "", cost: int = 1) -> None:
        """Queue a call nobody waits for; after ``close`` it is dropped."""
        self._queue(_Queued(flow, cost, call))

    def _queue(self, queued: _Queued) -> None:
        if not self.closed:
            self._inbox.put(queued)
        elif queued.tell is not None:
            queued.tell(Outcome(error=EngineError(CLOSED)))

    def charge(self, flow: str, tokens: int) -> None:
        """From within a call: what it costs beyond what it was queued with."""
        self._turns.charge(flow, tokens)

    @property
    def closed(self) -> bool:
        """Whether it takes in nothing more."""
        return not self._end.alive

    def close(self) -> None:
        """Finish what is queued, then end the thread."""
        self._end()


def _serve(inbox: "SimpleQueue[_Queued | None]", turns: Turns[_Queued]) -> None:
    """The thread: take in what has come, carry out whose turn it is; end after None, when nothing is left."""
    open_ = True
    later: set[Future[Any]] = set()
    while open_ or turns:
        while (open_ and not turns) or not inbox.empty():
            queued = inbox.get()
            if queued is None:
                open_ = False
            else:
                turns.put(queued.flow, queued, queued.cost, first=queued.first)
        if turns:
            queued = turns.take()
            if queued.future is not None and queued.future.cancelled():
                turns.charge(queued.flow, -queued.cost)
            else:
                _carry_out(queued, later)
            del queued  # The thread holds on to nothing while it waits.
    wait(later)


def _carry_out(queued: _Queued, later: "set[Future[Any]]") -> None:
    """Run a call and tell whoever waits for it; ``later`` holds what goes on beside the calls that follow."""
    outcome = _outcome(queued.call)
    if not isinstance(outcome.result, Future):
        _say(queued.tell, outcome)
        return

    def over(done: "Future[Any]") -> None:
        later.discard(done)
        _say(queued.tell, _outcome(done.result))

    later.add(outcome.result)
    outcome.result.add_done_callback(over)


def _say(tell: Callable[[Outcome], object] | None, outcome: Outcome) -> None:
    if tell is not None:
        tell(outcome)
    elif outcome.error is not None:
        logger.error("a call that nobody waits for failed", exc_info=outcome.error)


def _outcome(call: Callable[[], Any]) -> Outcome:
    """What a call came to, or the error it raised, whatever that is."""
    try:
        return Outcome(call())
    except BaseException as error:  # noqa: BLE001  it is raised where the answer is waited for
        return Outcome(error=error)


def _tell(future: asyncio.Future[Any], outcome: Outcome) -> None:
    """Settle a future, from another thread than its own."""
    _on_loop(future.get_loop(), partial(_settle, future, None), outcome)


def _on_loop(loop: asyncio.AbstractEventLoop, told: Callable[[Outcome], object], outcome: Outcome) -> None:
    """Tell somebody, from another thread than the loop's."""
    try:
        loop.call_soon_threadsafe(told, outcome)
    except RuntimeError:  # The loop was closed, and with it whoever waited.
        return


def _settle(future: asyncio.Future[Any], noted: Callable[[Outcome], object] | None, outcome: Outcome) -> None:
    if noted is not None:
        noted(outcome)
    if future.done():
        return
    if outcome.error is not None:
        future.set_exception(outcome.error)
    else:
        future.set_result(outcome.result)


def _finish(inbox: "SimpleQueue[_Queued | None]", thread: Thread) -> None:
    """End a worker's thread: when it is closed, forgotten, or at the end of the process."""
    inbox.put(None)
    if thread is not current_thread():
        thread.join()


class _Seat(NamedTuple):
    """One who waits to be computed for."""

    item: Any
    flow: str
    cost: int
    future: asyncio.Future[Any]


class Gatherer(Generic[Item, Result]):
    """Joins calls of one flow that are issued in one turn of the event loop into one backend call.

    The turn, not a clock, decides what is joined, so a loop that issues the same calls gets the same batches. A call
    that is at fault gets its own error, and the others are joined as if it had not been there; what the backend itself
    fails at, such as memory, everybody is told.
    """

    def __init__(self, worker: Worker, call: Callable[[Sequence[Item]], Sequence[Result]]) -> None:
        self._worker = worker
        self._call = call
        self._waiting: dict[str, list[_Seat]] = {}

    async def __call__(self, item: Item, *, flow: str = "", cost: int = 1) -> Result:
        """The item's own share of the joint answer."""
        loop = asyncio.get_running_loop()
        if flow not in self._waiting:
            self._waiting[flow] = []
            loop.call_soon(lambda: loop.create_task(self._flush(flow)))
        seat = _Seat(item, flow, cost, loop.create_future())
        self._waiting[flow].append(seat)
        found: Result = await seat.future
        return found

    async def _flush(self, flow: str) -> None:
        # Callers that gave up meanwhile are not computed for.
        batch = [seat for seat in self._waiting.pop(flow) if not seat.future.done()]
        if not batch:
            return
        joint = await self._outcome(batch)
        if len(batch) > 1 and isinstance(joint, FAULTS_OF_A_CALL):
            batch = await self._without_faults(batch)
            joint = await self._outcome(batch) if batch else []
        for index, seat in enumerate(batch):
            if seat.future.done():
                continue
            if isinstance(joint, BaseException):
                seat.future.set_exception(joint)
            else:
                seat.future.set_result(joint[index])

    async def _without_faults(self, batch: Sequence[_Seat]) -> list[_Seat]:
        """The calls that are not at fault, once those that are have been told."""
        faultless = []
        for seat in batch:
            alone = await self._outcome([seat])
            if not isinstance(alone, FAULTS_OF_A_CALL):
                faultless.append(seat)
            elif not seat.future.done():
                seat.future.set_exception(alone)
        return faultless

    async def _outcome(self, batch: Sequence[_Seat]) -> Sequence[Result] | BaseException:
        items, cost = [seat.item for seat in batch], sum(seat.cost for seat in batch)
        done = asyncio.ensure_future(self._worker.run(lambda: self._call(items), flow=batch[0].flow, cost=cost))
        await asyncio.wait([done])
        return done.exception() or done.result()


class WaitingRoom(Generic[Item, Result]):
    """Joins all calls that wait when the worker comes to them into one backend call, up to a budget of tokens.

    Tenants take turns for the places in it, and the room takes turns with the other flows of the worker. A call that is
    cancelled before is not computed for. One that is at fault gets its own error, and what the backend itself fails at
    is told to all of the batch.
    """

    def __init__(
        self,
        worker: Worker,
        call: Callable[[Sequence[Item]], Sequence[Result]],
        *,
        budget: int,
        flow: str = DRAWING,
        quantum: int = QUANTUM,
        spent: Callable[[Item, Result], int] | None = None,
    ) -> None:
        self._worker = worker
        self._call = call
        self._budget = budget
        self._flow = flow
        self._spent = spent
        self._seats: Turns[_Seat] = Turns(quantum)
        self._lock = Lock()  # of the seats: they are taken on the event loop and left on the worker's thread

    def __len__(self) -> int:
        return len(self._seats)

    async def __call__(self, item: Item, *, tenant: str = "", cost: int = 1) -> Result:
        """The item's own share of the joint answer."""
        return await self.start(item, tenant=tenant, cost=cost)

    def start(self, item: Item, *, tenant: str = "", cost: int = 1) -> asyncio.Future[Result]:
        """The same, with its place taken before this returns; ``cost`` is the most tokens it may come to."""
        return self.start_all([item], tenant=tenant, costs=[cost])[0]

    def start_all(
        self, items: Sequence[Item], *, tenant: str = "", costs: Sequence[int]
    ) -> list[asyncio.Future[Result]]:
        """Several that come in together: a worker that is free meanwhile does not part them."""
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[Result]] = [loop.create_future() for _ in items]
        if self._worker.closed:
            for future in futures:
                future.set_exception(EngineError(CLOSED))
            return futures
        with self._lock:
            for item, cost, future in zip(items, costs, futures, strict=True):
                self._seats.put(tenant, _Seat(item, tenant, cost, future), cost)
        # As many turns are asked for as there are seats; those that find the room empty cost nothing.
        for _ in items:
            self._worker.post(self._serve, flow=self._flow, cost=0)
        return futures

    def _serve(self) -> None:
        """On the worker's thread: the next batch."""
        batch = self._batch()
        if batch:
            self._worker.charge(self._flow, sum(seat.cost for seat in batch))
            self._answer(batch)

    def _batch(self) -> list[_Seat]:
        batch: list[_Seat] = []
        tokens = 0
        with self._lock:
            while self._seats and tokens < self._budget:
                seat = self._seats.take()
                if seat.future.cancelled():
                    self._seats.charge(seat.flow, -seat.cost)
                else:
                    batch.append(seat)
                    tokens += seat.cost
        return batch

    def _answer(self, batch: Sequence[_Seat]) -> None:
        """Tell everyone of a batch; where one is at fault, halves are tried until it is alone."""
        joint = _outcome(lambda: self._call([seat.item for seat in batch]))
        if isinstance(joint.error, FAULTS_OF_A_CALL) and len(batch) > 1:
            middle = len(batch) // 2
            self._answer(batch[:middle])
            self._answer(batch[middle:])
        elif joint.error is not None:
            for seat in batch:
                _tell(seat.future, joint)
        else:
            self._share_out(batch, joint.result)

    def _share_out(self, batch: Sequence[_Seat], results: Sequence[Result]) -> None:
        """Each its own, and what was charged and not used is given back."""
        for seat, result in zip(batch, results, strict=True):
            _tell(seat.future, Outcome(result))
        if self._spent is None:
            return
        with self._lock:
            for seat, result in zip(batch, results, strict=True):
                unused = seat.cost - self._spent(seat.item, result)
                self._seats.charge(seat.flow, -unused)
                self._worker.charge(self._flow, -unused)
