"""What is written down every second, beside everything else."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from fettle.errors import FettleError

logger = logging.getLogger(__name__)

INTERVAL_S = 1.0


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

    async def stop(self) -> None:
        """End, with everything written that can be."""
        self._over.set()
        if self._running is not None:
            await asyncio.wait([self._running])  # not cancelled: a transaction cut short would keep others out
        await self.now()

    async def now(self) -> None:
        """Call each task."""
        for number, task in enumerate(self._tasks):
            try:
                await task()
            except FettleError as error:
                if number not in self._failing:
                    logger.warning("%s; it is tried again every second", error.message)
                self._failing.add(number)
            else:
                self._failing.discard(number)

    async def _go_on(self) -> None:
        while not self._over.is_set():
            try:
                async with asyncio.timeout(self._interval_s):
                    await self._over.wait()
            except TimeoutError:
                await self.now()
