"""What goes on beside the requests, and what nobody may ever have to wait for."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from fettle.errors import FettleError, NotFoundError

logger = logging.getLogger(__name__)

ATTEMPTED_AGAIN_S = 60.0
"""Seconds after which it is worth trying again what fails by itself."""


class GoingOn:
    """Tasks by name, each of which goes on once at a time. What one fails with is said in the log."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._failed: dict[str, float] = {}
        """When each failed that has not succeeded since."""

    def begin(self, name: str, act: Callable[[], Awaitable[object]]) -> "asyncio.Task[None]":
        """The task of that name, begun if it does not go on already. What it acts upon may be gone: then it is done."""
        if name not in self._tasks:
            self._tasks[name] = asyncio.get_running_loop().create_task(_acted(act))
            self._tasks[name].add_done_callback(lambda task: self._ended(name, task))
        return self._tasks[name]

    def attempt(self, name: str, act: Callable[[], Awaitable[object]]) -> None:
        """Begin it, unless it goes on already or failed less than a minute ago."""
        latest = asyncio.get_running_loop().time() - ATTEMPTED_AGAIN_S
        self._failed = {each: since for each, since in self._failed.items() if since > latest}
        if name not in self._failed:
            self.begin(name, act)

    async def ended(self, name: str, *, within_s: float) -> None:
        """Return once the task of that name has ended, or after a while."""
        if name in self._tasks:
            await asyncio.wait([self._tasks[name]], timeout=within_s)

    async def close(self, *, patience_s: float) -> None:
        """Wait for them, up to a limit; the others are broken off."""
        if going_on := list(self._tasks.values()):
            _, late = await asyncio.wait(going_on, timeout=patience_s)
            for task in late:
                task.cancel()

    def _ended(self, name: str, task: "asyncio.Task[None]") -> None:
        del self._tasks[name]
        self._failed.pop(name, None)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._failed[name] = asyncio.get_running_loop().time()
        if isinstance(error, FettleError):
            logger.warning("%s: %s", name, error.message)
        elif error is not None:
            logger.error("%s", name, exc_info=error)


async def in_turn(*parts: Awaitable[object]) -> None:
    """Each after the one before, whatever became of that; what one fails with is said in the log."""
    for part in parts:
        [error] = await asyncio.gather(part, return_exceptions=True)
        if isinstance(error, BaseException):
            logger.warning("ended without all that was to be done before: %s", error or type(error).__name__)


async def _acted(act: Callable[[], Awaitable[object]]) -> None:
    try:
        await act()
    except NotFoundError:
        return
