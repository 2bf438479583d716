"""Streams of calls: each call is answered in a task of its own, so many at once."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

Asked = TypeVar("Asked")


async def side_by_side(
    requests: AsyncIterator[Asked], answer: Callable[[Asked], Awaitable[None]], *, at_once: int
) -> None:
    """Answer calls as they come, until there are no more.

    While ``at_once`` of them are being answered no further one is read, so that who asks and does not listen is made to
    wait. When this is cancelled, or an answer fails, nobody is there any longer, and all answers under way end.
    """
    room = asyncio.Semaphore(at_once)

    async def answered(asked: Asked) -> None:
        try:
            await answer(asked)
        finally:
            room.release()

    async with asyncio.TaskGroup() as calls:
        async for asked in requests:
            await room.acquire()
            calls.create_task(answered(asked))
