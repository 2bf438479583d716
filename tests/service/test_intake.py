"""Large bodies: so much of them at a time, the others in line, and nobody for ever."""

import asyncio

import pytest

from fettle.service.intake import Intake


async def waits(intake: Intake, reader: str, nbytes: int) -> asyncio.Task[None]:
    """What a reader asked for and was not given."""
    task = asyncio.create_task(intake.take(reader, nbytes))
    await asyncio.sleep(0)
    assert not task.done()
    return task


async def test_who_finds_no_room_waits_until_some_is_given_back():
    intake = Intake(10)
    await intake.take("a", 6)
    b = await waits(intake, "b", 5)
    c = await waits(intake, "c", 1)  # there would be room, but b came first
    intake.give_back("a")
    await asyncio.gather(b, c)
    await waits(intake, "a", 5)


async def test_the_oldest_reader_goes_on_whatever_the_others_hold():
    intake = Intake(10)
    await intake.take("a", 6)
    await intake.take("b", 4)
    b = await waits(intake, "b", 1)
    await intake.take("a", 5)
    c = await waits(intake, "c", 9)
    intake.give_back("a")  # and b is the oldest
    await b
    intake.give_back("b")
    await c


async def test_a_body_that_is_larger_than_all_room_is_read_alone():
    intake = Intake(10)
    await intake.take("a", 100)
    b = await waits(intake, "b", 1)
    intake.give_back("a")
    await b


@pytest.mark.parametrize("let_in", [False, True], ids=["while it waits", "as it is let in"])
async def test_a_reader_that_leaves_takes_nothing_with_it(let_in):
    intake = Intake(10)
    await intake.take("a", 10)
    b = await waits(intake, "b", 10)
    c = await waits(intake, "c", 10)
    if let_in:
        intake.give_back("a")
    b.cancel()
    await asyncio.wait([b])
    intake.give_back("b")
    intake.give_back("a")
    intake.give_back("a")
    await c
    d = await waits(intake, "d", 1)
    intake.give_back("c")
    await d
