"""The line: calls arrive in the order in which they were issued, each with its number, whatever happens on the way."""

import asyncio

import pytest

from fettle.client.line import Line
from fettle.client.transport import Transport
from fettle.errors import BusyError, LossInputError, UnreachableError

from .raw import DROPPED


class Log:
    """The service's side: numbers are taken in order, and a number that comes again is known."""

    def __init__(self, raw, trouble=()):
        self.taken: list[str] = []
        self.trouble = list(trouble)
        """What happens to the next answers, if anything."""
        raw.says = self.says

    def says(self, asked):
        if asked.method == "GET":
            return 200, {"incarnation": 0, "next_seq": len(self.taken)}
        seq, name = asked.tree["seq"], asked.tree["name"]
        if name == "refused":
            return 400, {"error": {"code": "loss_input", "message": "no"}}
        if seq == len(self.taken):
            self.taken.append(name)
        assert self.taken[seq] == name
        return (self.trouble.pop(0) if self.trouble else None) or (202, {"id": f"run.0.{seq}"})


def line_to(raw, **settings) -> Line:
    return Line(Transport(raw.url, **settings), "run")


def put(line: Line, name: str) -> asyncio.Future[str]:
    return line.put("operations", lambda run: {"name": name})


async def test_calls_arrive_in_the_order_in_which_they_were_issued(raw):
    log, line = Log(raw), line_to(raw)
    names = [str(n) for n in range(20)]
    ids = await asyncio.gather(*(put(line, name) for name in names))
    assert log.taken == names
    assert ids == [f"run.0.{n}" for n in range(20)]


async def test_a_call_whose_answer_was_lost_is_sent_again_under_its_number(raw):
    log, line = Log(raw, trouble=[None, DROPPED, DROPPED]), line_to(raw)
    ids = await asyncio.gather(*(put(line, name) for name in "abc"))
    assert log.taken == ["a", "b", "c"]
    assert ids == ["run.0.0", "run.0.1", "run.0.2"]
    assert [asked.tree["seq"] for asked in raw.asked if asked.tree] == [0, 1, 1, 1, 2]


async def test_a_refused_call_gives_its_number_to_the_next(raw):
    log, line = Log(raw), line_to(raw)
    calls = [put(line, name) for name in ("a", "refused", "b")]
    done = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(done[1], LossInputError)
    assert log.taken == ["a", "b"]


async def test_after_an_answer_that_never_came_the_service_is_asked_where_it_stands(raw):
    log, line = Log(raw, trouble=[DROPPED] * 100), line_to(raw, patience=0.1)
    with pytest.raises(UnreachableError):
        await put(line, "a")
    log.trouble.clear()
    assert await put(line, "b") == "run.0.1"
    assert log.taken == ["a", "b"]


async def test_a_call_goes_to_its_end_when_its_caller_has_gone(raw):
    log, line = Log(raw, trouble=[(429, {"error": {"code": "busy", "message": "later"}})]), line_to(raw)
    given_up = put(line, "a")
    await asyncio.sleep(0)
    given_up.cancel()
    await put(line, "b")
    assert log.taken == ["a", "b"]


async def test_being_busy_keeps_the_order(raw):
    def busy_at_first(asked):
        if asked.method == "GET":
            return log.says(asked)
        refused.append(asked.tree["name"])
        return (429, {"error": {"code": "busy", "message": "later"}}) if len(refused) < 4 else log.says(asked)

    refused: list[str] = []
    log, line = Log(raw), line_to(raw)
    raw.says = busy_at_first
    await asyncio.gather(*(put(line, name) for name in "abc"))
    assert log.taken == ["a", "b", "c"]
    line = line_to(raw, patience=0.0)
    refused.clear()
    with pytest.raises(BusyError):
        await put(line, "d")
