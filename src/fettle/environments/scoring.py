"""A thread for rewards, so that a slow one keeps nobody waiting but those who need its answer."""

import asyncio
import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from typing import Any, NamedTuple, TypeVar

from fettle.errors import EnvironmentFault
from fettle.rewards import RewardFunction, breakdown, is_awaited, scored
from fettle.types import Task

T = TypeVar("T")

Score = dict[str, float]
Call = Callable[[], Any]


class _Crossing(NamedTuple):
    """The calls of one turn of a loop with who waits for each, and where their answers are put."""

    calls: list[tuple[Call, "asyncio.Future[Any]"]]
    answers: "Future[list[Any]]"
    """The EnvironmentFault of a call in the place of its answer."""


class ScoringThread:
    """Runs calls one at a time, in the order given, off the event loop.

    Those that are issued in one turn of the loop cross to the thread in one go, and their answers come back in one
    turn: a batch of cheap rewards pays for a single crossing, and whatever is joined after them is joined the same
    however long they took. A process that ends does not wait for a reward that is still at work.
    """

    def __init__(self) -> None:
        self._queue: SimpleQueue[_Crossing | None] = SimpleQueue()
        threading.Thread(target=_work, args=(self._queue,), name="fettle-scoring", daemon=True).start()
        weakref.finalize(self, self._queue.put, None)
        self._issued: dict[asyncio.AbstractEventLoop, list[tuple[Call, asyncio.Future[Any]]]] = {}

    async def scored(self, name: str, reward: RewardFunction, reply: str, task: Task) -> Score:
        """What ``reward`` pays: one that is a coroutine function is awaited in the loop, another runs on the thread.

        Raises:
            EnvironmentFault: it raised, or paid something that is not a finite number.
        """
        if is_awaited(reward):
            return await scored(name, reward, reply, task)
        return await self.run(partial(breakdown, name, reward, reply, task))

    async def run(self, call: Callable[[], T]) -> T:
        """The call's answer, or the EnvironmentFault that it raised."""
        loop = asyncio.get_running_loop()
        if loop not in self._issued:
            self._issued[loop] = []
            loop.call_soon(self._cross, loop)
        future: asyncio.Future[T] = loop.create_future()
        self._issued[loop].append((call, future))
        return await future

    def _cross(self, loop: asyncio.AbstractEventLoop) -> None:
        crossing = _Crossing(self._issued.pop(loop), Future())
        self._queue.put(crossing)
        futures = [future for _, future in crossing.calls]
        asyncio.wrap_future(crossing.answers, loop=loop).add_done_callback(lambda done: _hand_out(done, futures))


def _work(queue: "SimpleQueue[_Crossing | None]") -> None:
    """What the thread does until it is told of an end."""
    while (crossing := queue.get()) is not None:
        try:
            crossing.answers.set_result(_answers(crossing.calls))
        except BaseException as error:  # noqa: BLE001  it is raised where the answers are waited for
            crossing.answers.set_exception(error)


def _answers(calls: Sequence[tuple[Call, "asyncio.Future[Any]"]]) -> list[Any]:
    # For callers that gave up meanwhile nothing is called, so that nobody waits for their answers.
    return [None if future.cancelled() else _answer(call) for call, future in calls]


def _answer(call: Call) -> Any:
    try:
        return call()
    except EnvironmentFault as fault:  # of this episode: its neighbours have answers of their own
        return fault


def _hand_out(done: "asyncio.Future[list[Any]]", futures: Sequence["asyncio.Future[Any]"]) -> None:
    broken = done.exception()
    answers = [broken] * len(futures) if broken is not None else done.result()
    for future, answer in zip(futures, answers, strict=True):
        if future.done():
            continue
        if isinstance(answer, BaseException):
            future.set_exception(answer)
        else:
            future.set_result(answer)
