"""Writes that nobody waits for: in order, and again until they succeed."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from fettle.errors import FettleError, StorageError

logger = logging.getLogger(__name__)

PAUSE_S = 1.0
"""Between attempts while a disk is full or a database away."""


class Later:
    """A queue of writes. What is in it is lost with the process, so nothing that was promised waits here."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Callable[[], Awaitable[object]]] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    def post(self, write: Callable[[], Awaitable[object]]) -> None:
        """Have it written, soon."""
        self._queue.put_nowait(write)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self, *, patience_s: float) -> None:
        """Write what is left, up to a limit; the rest is dropped."""
        if self._task is not None:
            await asyncio.wait([self._task], timeout=patience_s)
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        while not self._queue.empty():
            write = self._queue.get_nowait()
            done = await _succeeded(write)
            while not done:
                await asyncio.sleep(PAUSE_S)
                done = await _succeeded(write)


async def _succeeded(write: Callable[[], Awaitable[object]]) -> bool:
    """Whether there is nothing more to be tried."""
    try:
        await write()
    except StorageError as error:
        logger.warning("will be tried again: %s", error.message)
        return False
    except FettleError as error:
        logger.warning("left unwritten: %s", error.message)
    return True
