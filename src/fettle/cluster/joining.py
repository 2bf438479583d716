"""Answers that come back together, as they were asked for."""

import asyncio
from collections.abc import Coroutine
from functools import partial
from typing import Any, TypeVar

Answer = TypeVar("Answer")


class Joining:
    """What is asked in one turn of the event loop is answered in one turn, as far as it is there within a time.

    Whatever is joined after the answers, such as draws of one batch, is then joined the same however long each took.
    """

    def __init__(self, seconds: float) -> None:
        """0: each is answered as soon as it can be."""
        self._seconds = seconds
        self._issued: list[tuple[asyncio.Task[Any], asyncio.Future[Any]]] = []
        self._handing: set[asyncio.Task[None]] = set()

    async def run(self, call: Coroutine[Any, Any, Answer]) -> Answer:
        """The call's answer, or what it raised; a call that nobody waits for any more is cancelled."""
        if not self._seconds:
            return await call
        loop = asyncio.get_running_loop()
        if not self._issued:
            loop.call_soon(self._cross)
        task, future = asyncio.ensure_future(call), loop.create_future()
        self._issued.append((task, future))
        try:
            found: Answer = await future
        finally:
            task.cancel()
        return found

    def _cross(self) -> None:
        issued, self._issued = self._issued, []
        handing = asyncio.ensure_future(self._handed_out(issued))
        self._handing.add(handing)
        handing.add_done_callback(self._handing.discard)

    async def _handed_out(self, issued: list[tuple["asyncio.Task[Any]", "asyncio.Future[Any]"]]) -> None:
        await asyncio.wait([task for task, _ in issued], timeout=self._seconds)
        for task, future in issued:
            if task.done():
                _hand_over(future, task)
            else:
                task.add_done_callback(partial(_hand_over, future))


def _hand_over(future: "asyncio.Future[Any]", task: "asyncio.Task[Any]") -> None:
    if future.done():
        return
    if task.cancelled():
        future.cancel()
    elif (error := task.exception()) is not None:
        future.set_exception(error)
    else:
        future.set_result(task.result())
