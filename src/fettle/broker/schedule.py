"""One worker thread owns the backend; calls queue for it, and those that can share a batch do."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

from fettle.errors import ConfigError, DataError, EngineError, LossInputError, ModelError, NotFoundError

Result = TypeVar("Result")
Item = TypeVar("Item")

FAULTS_OF_A_CALL = (ConfigError, DataError, LossInputError, ModelError, NotFoundError)
"""What is wrong with what was asked, and will be when it is asked again."""


class Worker:
    """Runs backend calls one at a time, in the order given, off the event loop."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="fettle-engine")

    async def run(self, call: Callable[[], Result]) -> Result:
        """The call's answer. Its place in the queue is taken before this first waits.

        Raises:
            EngineError: the worker was closed.
        """
        return await self.start(call)

    def start(self, call: Callable[[], Result]) -> asyncio.Future[Result]:
        """The same, queued before this returns."""
        loop = asyncio.get_running_loop()
        try:
            return loop.run_in_executor(self._thread, call)
        except RuntimeError:
            closed: asyncio.Future[Result] = loop.create_future()
            closed.set_exception(EngineError("this engine was closed: make a new one"))
            return closed

    def post(self, call: Callable[[], object]) -> None:
        """Queue a call nobody waits for; after ``close`` it is dropped."""
        try:
            self._thread.submit(call)
        except RuntimeError:
            return

    def close(self) -> None:
        """Finish what is queued, then end the thread."""
        self._thread.shutdown(wait=True)


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
