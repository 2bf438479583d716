"""Several at once, of which none goes on alone."""

import asyncio
from collections.abc import Awaitable, Iterable
from typing import TypeVar

Answer = TypeVar("Answer")


async def together(calls: Iterable[Awaitable[Answer]]) -> list[Answer]:
    """The answers, in order. Where a call raises, the others are cancelled, and have ended when that is told."""
    tasks: list[asyncio.Future[Answer]] = []
    try:
        tasks.extend(map(asyncio.ensure_future, calls))
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
