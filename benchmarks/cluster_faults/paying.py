"""Rewards."""

import asyncio

from fettle.types import Task


def variety(reply: str, task: Task) -> float:
    """What an untrained model earns more or less of, so that there is something to learn at once.

    Where all earn the same, gradients are rounding alone, of which Adam makes steps that are another's on fewer ranks.
    """
    return len(set(reply)) / 10


async def soon(reply: str, task: Task) -> float:
    """What the reply's length earns, after a while."""
    await asyncio.sleep(0.2)
    return len(reply) / 10 + len(task.prompt[-1].content) / 100
