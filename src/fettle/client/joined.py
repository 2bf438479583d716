"""Calls that are issued in one turn of the event loop, as one request."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from fettle.errors import ConfigError, DataError, FettleError, LossInputError, ModelError

Item = TypeVar("Item")
Result = TypeVar("Result")

FAULTS_OF_A_CALL = (ConfigError, DataError, LossInputError, ModelError)
"""What is wrong with one of the calls, and not with the others."""


class Joined(Generic[Item, Result]):
    """The turn, not a clock, decides what goes together, so that a loop that issues the same calls gets the same bits.

    A call that is at fault gets its own error, and the others go together as if it had not been there.
    """

    def __init__(self, asked: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]]) -> None:
        self._asked = asked
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self._flushes: set[asyncio.Task[None]] = set()

    async def __call__(self, item: Item) -> Result:
        """The item's own share of the joint answer."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._begin)
        future: asyncio.Future[Result] = loop.create_future()
        self._waiting.append((item, future))
        return await future

    def _begin(self) -> None:
        flush = asyncio.get_running_loop().create_task(self._flush())
        self._flushes.add(flush)  # the event loop alone would not keep it alive
        flush.add_done_callback(self._flushes.discard)

    async def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        batch = [(item, future) for item, future in waiting if not future.done()]
        (asked,), _ = await asyncio.wait([asyncio.ensure_future(self._outcomes([item for item, _ in batch]))])
        failed = asked.exception()
        for place, (_, future) in enumerate(batch):
            if future.done():
                continue
            outcome = failed or asked.result()[place]
            if isinstance(outcome, BaseException):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

    async def _outcomes(self, items: Sequence[Item]) -> Sequence[Result | FettleError]:
        """For each item its result or its error."""
        if not items:
            return []
        try:
            return await self._asked(items)
        except FettleError as error:
            if len(items) == 1 or not isinstance(error, FAULTS_OF_A_CALL):
                return [error] * len(items)
        alone = [(await self._outcomes([item]))[0] for item in items]
        faultless = [place for place, outcome in enumerate(alone) if not isinstance(outcome, FAULTS_OF_A_CALL)]
        if len(faultless) < len(items):
            for place, outcome in zip(faultless, await self._outcomes([items[at] for at in faultless]), strict=True):
                alone[place] = outcome
        return alone
