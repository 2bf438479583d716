"""One worker thread owns the backend; calls queue for it, and those that can share a batch do."""

import asyncio
import logging
import weakref
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from threading import Thread, current_thread
from typing import Any, Generic, NamedTuple, TypeVar

from fettle.broker.turns import Turns
from fettle.config import Scheduling
from fettle.errors import ConfigError, DataError, EngineError, LossInputError, ModelError, NotFoundError

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
Item = TypeVar("Item")

FAULTS_OF_A_CALL = (ConfigError, DataError, LossInputError, ModelError, NotFoundError)
"""What is wrong with what was asked, and will be when it is asked again."""

QUANTUM = Scheduling().quantum_tokens
"""Tokens of a turn, where nothing else is said."""


class _Queued(NamedTuple):
    """A call that waits for the worker."""

    flow: str
    cost: int
    call: Callable[[], Any]
    future: asyncio.Future[Any] | None


class Worker:
    """Runs backend calls one at a time, off the event loop; flows take turns by ``Turns``, a flow runs in order."""

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

    def start(self, call: Callable[[], Result], *, flow: str = "", cost: int = 1) -> asyncio.Future[Result]:
        """The same, queued before this returns; once the future is cancelled, a call that has not begun never does."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        if self._end.alive:
            self._inbox.put(_Queued(flow, cost, call, future))
        else:
            future.set_exception(EngineError("this engine was closed: make a new one"))
        return future

    def post(self, call: Callable[[], object], *, flow: str = "", cost: int = 1) -> None:
        """Queue a call nobody waits for; after ``close`` it is dropped."""
        if self._end.alive:
            self._inbox.put(_Queued(flow, cost, call, None))

    def charge(self, flow: str, tokens: int) -> None:
        """From within a call: what it costs beyond what it was queued with."""
        self._turns.charge(flow, tokens)

    def close(self) -> None:
        """Finish what is queued, then end the thread."""
        self._end()


def _serve(inbox: "SimpleQueue[_Queued | None]", turns: Turns[_Queued]) -> None:
    """The thread: take in what has come, carry out whose turn it is; end after None, when nothing is left."""
    open_ = True
    while open_ or turns:
        while (open_ and not turns) or not inbox.empty():
            queued = inbox.get()
            if queued is None:
                open_ = False
            else:
                turns.put(queued.flow, queued, queued.cost)
        if turns:
            queued = turns.take()
            if queued.future is not None and queued.future.cancelled():
                turns.charge(queued.flow, -queued.cost)
            else:
                _carry_out(queued.call, queued.future)
            del queued  # The thread holds on to nothing while it waits.


def _carry_out(call: Callable[[], Any], future: asyncio.Future[Any] | None) -> None:
    """Run a call and tell whoever waits for it, on their event loop."""
    answer, error = None, None
    try:
        answer = call()
    except BaseException as raised:  # noqa: BLE001  it is raised where the answer is waited for
        error = raised
    if future is None:
        if error is not None:
            logger.error("a call that nobody waits for failed", exc_info=error)
        return
    try:
        future.get_loop().call_soon_threadsafe(_settle, future, answer, error)
    except RuntimeError:  # The loop was closed, and with it whoever waited.
        return


def _settle(future: asyncio.Future[Any], answer: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(answer)


def _finish(inbox: "SimpleQueue[_Queued | None]", thread: Thread) -> None:
    """End a worker's thread: when it is closed, forgotten, or at the end of the process."""
    inbox.put(None)
    if thread is not current_thread():
        thread.join()


class Gatherer(Generic[Item, Result]):
    """Joins calls that are issued in one turn of the event loop into one backend call.

    The turn, not a clock, decides what is joined, so a loop that issues the same calls gets the same batches. A call
    that is at fault gets its own error, and the others are joined as if it had not been there; what the backend itself
    fails at, such as memory, everybody is told.
    """

    def __init__(self, worker: Worker, call: Callable[[Sequence[Item]], Sequence[Result]]) -> None:
        self._worker = worker
        self._call = call
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []

    async def __call__(self, item: Item) -> Result:
        """The item's own share of the joint answer."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(lambda: loop.create_task(self._flush()))
        future: asyncio.Future[Result] = loop.create_future()
        self._waiting.append((item, future))
        return await future

    async def _flush(self) -> None:
        # Callers that gave up meanwhile are not computed for.
        batch, self._waiting = [(item, future) for item, future in self._waiting if not future.done()], []
        if not batch:
            return
        joint = await self._outcome([item for item, _ in batch])
        if len(batch) > 1 and isinstance(joint, FAULTS_OF_A_CALL):
            batch = await self._without_faults(batch)
            joint = await self._outcome([item for item, _ in batch]) if batch else []
        for index, (_, future) in enumerate(batch):
            if future.done():
                continue
            if isinstance(joint, BaseException):
                future.set_exception(joint)
            else:
                future.set_result(joint[index])

    async def _without_faults(
        self, batch: Sequence[tuple[Item, asyncio.Future[Result]]]
    ) -> list[tuple[Item, asyncio.Future[Result]]]:
        """The calls that are not at fault, once those that are have been told."""
        faultless = []
        for item, future in batch:
            alone = await self._outcome([item])
            if not isinstance(alone, FAULTS_OF_A_CALL):
                faultless.append((item, future))
            elif not future.done():
                future.set_exception(alone)
        return faultless

    async def _outcome(self, items: Sequence[Item]) -> Sequence[Result] | BaseException:
        done = asyncio.ensure_future(self._worker.run(lambda: self._call(items)))
        await asyncio.wait([done])
        return done.exception() or done.result()
