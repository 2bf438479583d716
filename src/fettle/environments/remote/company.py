"""Calls that were made at once are gone on from at once: one large batch for the engine, and not many small ones."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import TypeVar
from weakref import WeakKeyDictionary

Answer = TypeVar("Answer")

HELD = 0.5
"""Seconds that an answer waits, at most, for those that were asked for together with the first."""


@dataclass(slots=True, eq=False)
class _Company:
    """The calls of one turn of an event loop."""

    expected: int = 1
    """Calls without an answer, and one more while the turn goes on."""
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    timer: asyncio.TimerHandle | None = None

    def gathered(self) -> None:
        """The turn is over: nobody joins any more."""
        self.expected -= 1
        if not self.expected:
            self._go()

    def answered(self) -> None:
        """One call less is waited for, and the others not much longer."""
        self.expected -= 1
        if not self.expected:
            self._go()
        elif self.timer is None:
            self.timer = asyncio.get_running_loop().call_later(HELD, self.gone.set)

    def _go(self) -> None:
        self.gone.set()
        if self.timer is not None:
            self.timer.cancel()


class Companies:
    """Holds answers until all calls of the same turn of the loop have theirs, or ``HELD`` has passed.

    What an episode does next is to sample, and samples that are asked for in one turn are drawn in one batch. Answers
    come one by one; gone on from as they come, a batch of a hundred would be a hundred batches.
    """

    def __init__(self) -> None:
        self._gathering: WeakKeyDictionary[asyncio.AbstractEventLoop, _Company] = WeakKeyDictionary()

    async def answer(self, call: Awaitable[Answer]) -> Answer:
        """What the call answers. One that fails is not held."""
        loop = asyncio.get_running_loop()
        company = self._gathering.get(loop)
        if company is None:
            company = self._gathering[loop] = _Company()
            loop.call_soon(self._gathered, loop)
        company.expected += 1
        try:
            found = await call
        finally:
            company.answered()
        await company.gone.wait()
        return found

    def _gathered(self, loop: asyncio.AbstractEventLoop) -> None:
        self._gathering.pop(loop).gathered()
