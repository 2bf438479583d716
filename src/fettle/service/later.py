"""Writes that nobody waits for: in order, and again until they succeed, or for ten minutes."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from fettle.errors import FettleError, StorageError

logger = logging.getLogger(__name__)

PAUSE_S = 1.0
"""Between attempts while a disk is full or a database away."""
ATTEMPTS = 600
"""After which a write is given up, so that what fails for good does not stop what comes after it."""


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
            for _ in range(ATTEMPTS):
                if await _ended(write):
                    break
                await asyncio.sleep(PAUSE_S)
            else:
                logger.error("given up after %d attempts", ATTEMPTS)


async def _ended(write: Callable[[], Awaitable[object]]) -> bool:
    """Whether there is nothing more to be tried."""
    [error] = await asyncio.gather(write(), return_exceptions=True)
    if isinstance(error, StorageError):
        logger.warning("will be tried again: %s", error.message)
        return False
    if isinstance(error, FettleError):
        logger.warning("left unwritten: %s", error.message)
    elif isinstance(error, BaseException):  # a mistake of ours, which the writes that come next are not to suffer from
        logger.error("left unwritten", exc_info=error)
    return True
