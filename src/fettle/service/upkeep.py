"""What is written down every second, beside everything else."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from fettle.errors import FettleError

logger = logging.getLogger(__name__)

INTERVAL_S = 1.0
PATIENCE_S = 10.0
"""For what is written down at the end."""


class Upkeep:
    """Calls each of its tasks every second, and once more at the end. What fails is said once, and tried again."""

    def __init__(self, *tasks: Callable[[], Awaitable[object]], interval_s: float = INTERVAL_S) -> None:
        self._tasks = tasks
        self._interval_s = interval_s
        self._failing: set[int] = set()
        self._running: asyncio.Task[None] | None = None
        self._over = asyncio.Event()

    def start(self) -> None:
        """Begin."""
        self._running = asyncio.create_task(self._go_on())

    async def stop(self, *, patience_s: float = PATIENCE_S) -> None:
        """End, with everything written that can be up to a limit."""
        self._over.set()
        ending = asyncio.ensure_future(self._end())
        _, late = await asyncio.wait([ending], timeout=patience_s)
        if late:
            logger.warning(
                "what is written down beside the requests took more than %g s, and was broken off", patience_s
            )
            ending.cancel()
            if self._running is not None:
                self._running.cancel()

    async def now(self) -> None:
        """Call each task."""
        for number, task in enumerate(self._tasks):
            [error] = await asyncio.gather(task(), return_exceptions=True)
            if not isinstance(error, BaseException):
                self._failing.discard(number)
            elif number not in self._failing:
                self._failing.add(number)
                if isinstance(error, FettleError):
                    logger.warning("%s; it is tried again every second", error.message)
                else:
                    logger.error("this is tried again every second", exc_info=error)

    async def _end(self) -> None:
        if self._running is not None:
            await asyncio.wait([self._running])  # not cancelled: a transaction cut short would keep others out
        await self.now()

    async def _go_on(self) -> None:
        while not self._over.is_set():
            try:
                async with asyncio.timeout(self._interval_s):
                    await self._over.wait()
            except TimeoutError:
                await self.now()
