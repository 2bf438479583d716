"""Upkeep: what fails, by whatever mistake, is tried again, and what never ends does not keep it from ending."""

import asyncio

from fettle.service.upkeep import Upkeep


async def test_a_mistake_in_one_task_ends_neither_the_others_nor_itself():
    tried: list[str] = []

    async def mistaken() -> None:
        tried.append("mistaken")
        raise ZeroDivisionError

    async def next_one() -> None:
        tried.append("next")

    upkeep = Upkeep(mistaken, next_one, interval_s=0.01)
    upkeep.start()
    async with asyncio.timeout(10):
        while len(tried) < 4:  # noqa: ASYNC110  of a list nobody tells
            await asyncio.sleep(0.01)
    await upkeep.stop()
    assert tried[:4] == ["mistaken", "next"] * 2


async def test_a_task_that_never_ends_is_broken_off_at_the_end():
    begun, broken_off = asyncio.Event(), asyncio.Event()

    async def endless() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            broken_off.set()

    upkeep = Upkeep(endless, interval_s=0.01)
    upkeep.start()
    await begun.wait()
    async with asyncio.timeout(10):
        await upkeep.stop(patience_s=0.05)
        assert await broken_off.wait()
