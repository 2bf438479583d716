"""Calls of a stream are answered side by side, so many at once, and end together."""

import asyncio

import pytest

from fettle.environments.remote.streams import side_by_side

AT_ONCE = 3


async def numbers(read: list[int]):
    for number in range(10):
        read.append(number)
        yield number


async def test_each_is_answered_when_it_is_ready():
    answered = []

    async def answer(number: int) -> None:
        await asyncio.sleep(0 if number % 2 else 0.01)
        answered.append(number)

    await side_by_side(numbers([]), answer, at_once=AT_ONCE)
    assert sorted(answered) == list(range(10)) != answered


async def test_what_is_beyond_so_many_is_not_read_and_all_end_with_who_asks():
    read, ended, begun = [], [], asyncio.Semaphore(0)

    async def answer(number: int) -> None:
        begun.release()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(number)

    stream = asyncio.create_task(side_by_side(numbers(read), answer, at_once=AT_ONCE))
    for _ in range(AT_ONCE):
        await begun.acquire()
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(read) == AT_ONCE + 1  # the last of them waits for its turn
    stream.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stream
    assert sorted(ended) == list(range(AT_ONCE))


async def test_an_answer_that_reaches_nobody_ends_the_others():
    ended = []

    async def answer(number: int) -> None:
        if number == 1:
            raise ConnectionError
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(number)

    with pytest.raises(ExceptionGroup):
        await side_by_side(numbers([]), answer, at_once=AT_ONCE)
    assert ended
