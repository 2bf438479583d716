"""A thread for rewards, so that a slow one keeps nobody waiting but those who need its answer."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from fettle.errors import EnvironmentFault

Score = dict[str, float]
Call = Callable[[], Score]


class ScoringThread:
    """Runs calls one at a time, in the order given, off the event loop.

    Those that are issued in one turn of the loop cross to the thread in one go, and their answers come back in one
    turn: a batch of cheap rewards pays for a single crossing, and whatever is joined after them is joined the same
    however long they took.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="fettle-scoring")
        self._issued: dict[asyncio.AbstractEventLoop, list[tuple[Call, asyncio.Future[Score]]]] = {}

    async def run(self, call: Call) -> Score:
        """The call's answer, or the EnvironmentFault that it raised."""
        loop = asyncio.get_running_loop()
        if loop not in self._issued:
            self._issued[loop] = []
            loop.call_soon(self._cross, loop)
        future: asyncio.Future[Score] = loop.create_future()
        self._issued[loop].append((call, future))
        return await future

    def _cross(self, loop: asyncio.AbstractEventLoop) -> None:
        calls = self._issued.pop(loop)
        futures = [future for _, future in calls]
        crossing = loop.run_in_executor(self._thread, _answers, calls)
        crossing.add_done_callback(lambda done: _hand_out(done, futures))


def _answers(calls: Sequence[tuple[Call, "asyncio.Future[Score]"]]) -> list[Score | EnvironmentFault]:
    # For callers that gave up meanwhile nothing is scored, so that an ended run need not wait for their rewards.
    return [{} if future.cancelled() else _answer(call) for call, future in calls]


def _answer(call: Call) -> Score | EnvironmentFault:
    try:
        return call()
    except EnvironmentFault as fault:  # of this episode: its neighbours have answers of their own
        return fault


def _hand_out(
    done: "asyncio.Future[list[Score | EnvironmentFault]]", futures: Sequence["asyncio.Future[Score]"]
) -> None:
    broken = done.exception()
    answers = [broken] * len(futures) if broken is not None else done.result()
    for future, answer in zip(futures, answers, strict=True):
        if future.done():
            continue
        if isinstance(answer, BaseException):
            future.set_exception(answer)
        else:
            future.set_result(answer)
