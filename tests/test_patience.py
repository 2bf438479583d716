"""Requests that are repeated: which, how often, and what stands in the end."""

import itertools
import time

import httpx
import pytest

from fettle.patience import answer

BUSY = 503


def endpoint(*outcomes, **headers):
    """What asks for one outcome after another, the last of them for ever, and how often it was asked."""
    told = itertools.chain(outcomes, itertools.repeat(outcomes[-1]))
    asked = []

    async def ask():
        asked.append(time.monotonic())
        outcome = next(told)
        if isinstance(outcome, Exception):
            raise outcome
        return httpx.Response(outcome, headers=headers)

    return ask, asked


async def status(ask, *, seconds=60.0, first=0.001, longest=0.002, **settings):
    settings = {"passing": {BUSY}, "first": first, "longest": longest, "seconds": seconds, **settings}
    return (await answer(ask, **settings)).status_code


@pytest.mark.parametrize("refused", [400, 500])
async def test_a_refusal_stands_at_once(refused):
    ask, asked = endpoint(refused)
    assert await status(ask) == refused
    assert len(asked) == 1


async def test_what_may_pass_is_asked_again_until_it_has():
    ask, asked = endpoint(BUSY, httpx.ConnectError("nobody"), httpx.ReadTimeout("late"), BUSY, 200)
    assert await status(ask) == 200
    assert len(asked) == 5


@pytest.mark.parametrize("ends", [{"attempts": 3}, {"seconds": 0.0}])
async def test_with_patience_at_its_end_the_last_outcome_stands(ends):
    expected = ends.get("attempts", 1)
    ask, asked = endpoint(BUSY)
    assert await status(ask, **ends) == BUSY
    assert len(asked) == expected
    ask, asked = endpoint(httpx.ConnectError("nobody"))
    with pytest.raises(httpx.ConnectError):
        await status(ask, **ends)
    assert len(asked) == expected


@pytest.mark.parametrize("header", ["Retry-After", "Retry-After-Ms"])
async def test_a_pause_is_as_long_as_the_answer_asks_for(header):
    ask, asked = endpoint(BUSY, 200, **{header: "0.2" if header == "Retry-After" else "200"})
    assert await status(ask) == 200
    assert asked[1] - asked[0] >= 0.2


@pytest.mark.parametrize("longer", ["3600", "inf"])
async def test_who_asks_for_more_patience_than_there_is_is_not_waited_for(longer):
    ask, asked = endpoint(BUSY, **{"Retry-After": longer})
    assert await status(ask) == BUSY
    assert len(asked) == 1


@pytest.mark.parametrize("odd", ["Wed, 21 Oct 2026 07:28:00 GMT", "nan", "-5"])
async def test_a_pause_that_is_no_number_of_seconds_is_our_own(odd):
    ask, asked = endpoint(BUSY, 200, **{"Retry-After": odd})
    assert await status(ask) == 200
    assert len(asked) == 2
