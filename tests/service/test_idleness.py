"""Which runs are idle: those that nothing is under way with, and that nobody has asked for a while."""

import asyncio
from datetime import UTC, datetime, timedelta

from fettle.service.idleness import IDLE, Idleness
from tests.service.test_usage import promised


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


async def test_whoever_was_asked_longest_ago_is_idle_first_and_who_works_is_not():
    clock = Clock()
    idleness = Idleness(clock)
    works, first = promised("works.0.0"), promised("first.0.0")
    idleness.asked("works", works)
    idleness.asked("first", first)
    first.settle(None)
    await asyncio.sleep(0)
    clock.now += timedelta(seconds=1)
    second = promised("second.0.0")
    idleness.asked("second", second)
    second.settle(None)
    await asyncio.sleep(0)
    assert idleness.longest(["works", "first", "second"]) == []
    clock.now += IDLE
    assert idleness.longest(["second", "works", "first"]) == ["first", "second"]
    works.settle(None)
    await asyncio.sleep(0)
    assert idleness.longest(["works"]) == []
    clock.now += IDLE
    assert idleness.longest(["works"]) == ["works"]


async def test_what_an_earlier_process_worked_on_is_idle_a_while_after_the_start():
    clock = Clock()
    idleness = Idleness(clock)
    assert idleness.longest(["r"]) == []
    clock.now += IDLE
    assert idleness.longest(["r"]) == ["r"]
