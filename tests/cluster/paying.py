"""Rewards that take their time."""

import asyncio

from fettle.types import Task


async def soon(reply: str, task: Task) -> float:
    await asyncio.sleep(0.1)
    return len(reply) / 10 + len(task.prompt[-1].content) / 100


async def late(reply: str, task: Task) -> float:
    await asyncio.sleep(2)
    return 1.0
