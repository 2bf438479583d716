"""Rewards on a thread of their own: in order, one at a time, each with its own answer or its own fault."""

import asyncio
import gc
import subprocess
import sys
import threading

import pytest

from fettle.environments import ScoringThread, SingleTurn, paying
from fettle.errors import EnvironmentFault
from fettle.types import Message, Task

TASK = Task((Message("user", "3 + 4 ="),), {"answer": "7"}, "sums")


async def test_calls_of_one_turn_are_scored_in_order_on_one_thread_that_is_not_the_loop_s():
    thread, seen, places = ScoringThread(), [], set()

    def scored(number: int) -> dict[str, float]:
        seen.append(number)
        places.add(threading.get_ident())
        return {"number": float(number)}

    answers = await asyncio.gather(*(thread.run(lambda n=n: scored(n)) for n in range(128)))
    assert [answer["number"] for answer in answers] == list(range(128)) == seen
    assert len(places - {threading.get_ident()}) == len(places) == 1


async def test_a_fault_is_of_its_own_call_alone():
    thread = ScoringThread()

    def reward(reply: str, task: Task) -> float:
        return float(reply)

    async def stepped(reply: str) -> float:
        environment = SingleTurn(paying("brittle", reward, thread))
        await environment.reset(TASK)
        return (await environment.step(Message("assistant", reply))).reward

    first, fault, last = await asyncio.gather(*map(stepped, ("1", "seven", "3")), return_exceptions=True)
    assert (first, last) == (1.0, 3.0)
    assert isinstance(fault, EnvironmentFault)
    assert fault.message.startswith(f"reward brittle raised on task {TASK.id}: ValueError")


async def test_the_loop_goes_on_while_a_reward_is_at_work():
    thread, answered = ScoringThread(), threading.Event()

    def patient() -> dict[str, float]:
        return {"heard": float(answered.wait(timeout=30))}

    waiting = asyncio.ensure_future(thread.run(patient))
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_soon(answered.set)
    assert await waiting == {"heard": 1.0}


async def test_what_nobody_waits_for_any_more_is_not_scored():
    thread, began, goes_on, scored = ScoringThread(), threading.Event(), threading.Event(), []

    def first() -> dict[str, float]:
        began.set()
        goes_on.wait(timeout=30)
        return {}

    def second() -> dict[str, float]:
        scored.append("second")
        return {}

    calls = [asyncio.ensure_future(thread.run(call)) for call in (first, second)]
    await asyncio.to_thread(began.wait, 30)
    calls[1].cancel()
    goes_on.set()
    assert await calls[0] == {}
    assert await thread.run(lambda: {"next": 1.0}) == {"next": 1.0}
    assert scored == []


async def test_what_is_no_fault_of_an_environment_is_raised_as_it_is():
    def broken() -> dict[str, float]:
        raise KeyError("no such thing")

    with pytest.raises(KeyError, match="no such thing"):
        await ScoringThread().run(broken)


def test_a_thread_outlives_the_loop_that_first_used_it():
    thread = ScoringThread()
    assert [asyncio.run(thread.run(lambda n=n: {"n": n})) for n in (1.0, 2.0)] == [{"n": 1.0}, {"n": 2.0}]


HANGING = """
import asyncio, threading
from fettle.environments import ScoringThread

async def interrupted():
    thread, began = ScoringThread(), threading.Event()

    def hanging():
        began.set()
        threading.Event().wait()

    waiting = asyncio.ensure_future(thread.run(hanging))
    await asyncio.to_thread(began.wait)
    waiting.cancel()

asyncio.run(interrupted())
"""


def test_a_process_ends_while_a_reward_is_still_at_work():
    assert subprocess.run([sys.executable, "-c", HANGING], check=True, timeout=60).returncode == 0


async def test_what_belongs_to_a_loop_that_is_gone_keeps_nobody_else_waiting():
    thread, goes_on = ScoringThread(), threading.Event()

    async def leaves() -> None:
        await asyncio.wait([asyncio.ensure_future(thread.run(lambda: {"waited": goes_on.wait(30)}))], timeout=0.01)

    await asyncio.to_thread(asyncio.run, leaves())
    goes_on.set()
    assert await thread.run(lambda: {"next": 1.0}) == {"next": 1.0}


async def test_the_thread_ends_with_what_it_belongs_to():
    before = set(threading.enumerate())
    thread = ScoringThread()
    await thread.run(dict)
    (worker,) = set(threading.enumerate()) - before
    del thread
    gc.collect()
    await asyncio.to_thread(worker.join, 30)
    assert not worker.is_alive()
