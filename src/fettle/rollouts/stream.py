"""Batches in order, with a bounded number of them being drawn ahead of the trainer."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from typing import TypeVar

Batch = TypeVar("Batch")


async def stream(
    steps: range, draw: Callable[[int], Awaitable[Batch]], *, ahead: int, barriers: Collection[int] = ()
) -> AsyncIterator[tuple[int, Batch]]:
    """Yield ``(step, batch)`` in order. While the trainer works on one, up to ``ahead`` later ones are drawn.

    The batch of a step begins to be drawn ``ahead`` steps before it is due, from the policy of that moment, so a
    batch is at most ``ahead`` updates old. Drawing never passes a barrier: a batch after one begins only when the
    step of the barrier is done, so what a checkpoint at the barrier holds is all there is.
    """
    drawing: dict[int, asyncio.Task[Batch]] = {}
    try:
        for step in steps:
            for later in range(step, min(step + ahead, steps.stop - 1) + 1):
                if later not in drawing:
                    drawing[later] = asyncio.ensure_future(draw(later))
                if later in barriers:
                    break
            yield step, await drawing.pop(step)
    finally:
        for task in drawing.values():
            task.cancel()
        await asyncio.gather(*drawing.values(), return_exceptions=True)
