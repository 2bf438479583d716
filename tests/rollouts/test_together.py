"""Several at once: answers in order, and nobody goes on where one breaks off."""

import asyncio

import pytest

from fettle.rollouts.together import together


class Waiting:
    """Waits for ever, and tells when that ended."""

    def __init__(self) -> None:
        self.ended = False

    async def __call__(self) -> None:
        try:
            await asyncio.sleep(600)
        finally:
            self.ended = True


async def number(value: int) -> int:
    await asyncio.sleep(0)
    return value


async def breaking() -> None:
    await asyncio.sleep(0)
    raise KeyError("engine")


async def test_answers_come_in_order():
    assert await together(map(number, range(5))) == [0, 1, 2, 3, 4]
    assert await together([]) == []


async def test_where_one_raises_the_others_have_ended():
    waiting = Waiting()
    with pytest.raises(KeyError, match="engine"):
        await together([waiting(), breaking()])
    assert waiting.ended


async def test_so_they_have_where_a_call_cannot_be_made_at_all():
    waiting, before = Waiting(), len(asyncio.all_tasks())

    def calls():
        yield waiting()
        raise ValueError("no environment")

    with pytest.raises(ValueError, match="no environment"):
        await together(calls())
    assert len(asyncio.all_tasks()) == before


async def test_who_is_cancelled_cancels_them_all():
    waiting = Waiting()
    whole = asyncio.ensure_future(together([waiting(), number(1)]))
    await asyncio.sleep(0.01)
    whole.cancel()
    with pytest.raises(asyncio.CancelledError):
        await whole
    assert waiting.ended
