"""Calls of one turn are one request, and a faulty one among them harms nobody else."""

import asyncio

import pytest

from fettle.client.joined import Joined
from fettle.errors import BusyError, DataError


class Doubled:
    def __init__(self):
        self.asked: list[list[int]] = []

    async def __call__(self, items):
        self.asked.append(list(items))
        await asyncio.sleep(0)
        if max(items) > 1000:
            raise BusyError("too much")
        if bad := [item for item in items if item < 0]:
            raise DataError(f"{bad[0]} is below 0")
        return [2 * item for item in items]


async def test_calls_of_one_turn_are_one_request_and_later_ones_another():
    doubled = Doubled()
    joined = Joined(doubled)
    assert await asyncio.gather(*(joined(n) for n in range(5))) == [0, 2, 4, 6, 8]
    assert await joined(9) == 18
    assert doubled.asked == [[0, 1, 2, 3, 4], [9]]


async def test_a_call_at_fault_is_told_alone_and_the_others_go_together():
    doubled = Doubled()
    joined = Joined(doubled)
    found = await asyncio.gather(*(joined(n) for n in (1, -2, 3, -4)), return_exceptions=True)
    assert (found[0], found[2]) == (2, 6)
    assert [str(found[place]) for place in (1, 3)] == ["-2 is below 0", "-4 is below 0"]
    assert doubled.asked[-1] == [1, 3]


async def test_what_the_service_itself_fails_at_is_told_to_all_and_not_tried_again():
    doubled = Doubled()
    joined = Joined(doubled)
    found = await asyncio.gather(joined(1), joined(2000), return_exceptions=True)
    assert all(isinstance(each, BusyError) for each in found)
    assert doubled.asked == [[1, 2000]]


async def test_callers_that_gave_up_are_not_asked_for():
    doubled = Doubled()
    joined = Joined(doubled)
    calls = [asyncio.ensure_future(joined(n)) for n in (1, 2)]
    await asyncio.sleep(0)
    calls[0].cancel()
    assert await calls[1] == 4
    assert doubled.asked == [[2]]


async def test_an_answer_that_is_none_reaches_every_caller():
    async def broken(items):
        return [1 / 0 for _ in items]

    joined = Joined(broken)
    with pytest.raises(ZeroDivisionError):
        await joined(1)
