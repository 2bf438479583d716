"""One thread, calls in order, and calls of one turn joined into a batch."""

import asyncio
import threading

import pytest

from fettle.broker.schedule import Gatherer, Worker
from fettle.errors import EngineError, LossInputError, ModelError


@pytest.fixture
def worker():
    worker = Worker()
    yield worker
    worker.close()


async def test_calls_run_one_at_a_time_in_the_order_given_on_one_thread(worker):
    done: list[int] = []
    threads: set[int] = set()

    def call(i: int) -> None:
        threads.add(threading.get_ident())
        done.append(i)

    await asyncio.gather(*(worker.run(lambda i=i: call(i)) for i in range(20)))
    assert done == list(range(20))
    assert len(threads) == 1
    assert threading.get_ident() not in threads


async def test_calls_of_one_turn_share_a_batch_and_each_gets_its_own_answer(worker):
    batches: list[list[int]] = []

    def doubled(items):
        batches.append(list(items))
        return [2 * item for item in items]

    gather = Gatherer(worker, doubled)
    assert await asyncio.gather(*(gather(i) for i in range(5))) == [0, 2, 4, 6, 8]
    assert await gather(9) == 18
    assert batches == [[0, 1, 2, 3, 4], [9]]


async def test_one_bad_call_does_not_fail_its_neighbours_which_are_joined_as_if_it_had_not_been_there(worker):
    batches: list[list[int]] = []

    def checked(items):
        batches.append(list(items))
        if 3 in items:
            raise LossInputError("three is refused")
        return [2 * item for item in items]

    gather = Gatherer(worker, checked)
    answers = await asyncio.gather(*(gather(i) for i in range(5)), return_exceptions=True)
    assert answers[:3] == [0, 2, 4]
    assert isinstance(answers[3], LossInputError)
    assert answers[4] == 8
    assert batches[-1] == [0, 1, 2, 4]


async def test_calls_that_are_all_bad_get_each_their_own_error(worker):
    def refused(items):
        raise ModelError(f"{items[0]} is refused")

    gather = Gatherer(worker, refused)
    answers = await asyncio.gather(gather(1), gather(2), return_exceptions=True)
    assert [str(answer) for answer in answers] == ["1 is refused", "2 is refused"]


async def test_what_the_engine_fails_at_is_told_and_not_tried_again_in_smaller_pieces(worker):
    def short_of_memory(items):
        if len(items) > 1:
            raise EngineError("lower engine.sample_tokens")
        return items

    gather = Gatherer(worker, short_of_memory)
    answers = await asyncio.gather(gather(1), gather(2), return_exceptions=True)
    assert [str(answer) for answer in answers] == ["lower engine.sample_tokens"] * 2


async def test_a_fault_of_the_backend_reaches_every_waiter(worker):
    def broken(items):
        raise RuntimeError("the machine is on fire")

    gather = Gatherer(worker, broken)
    answers = await asyncio.gather(gather(1), gather(2), return_exceptions=True)
    assert [str(answer) for answer in answers] == ["the machine is on fire"] * 2


async def test_callers_that_gave_up_are_not_computed_for(worker):
    asked: list[int] = []

    def doubled(items):
        asked.extend(items)
        return [2 * item for item in items]

    gather = Gatherer(worker, doubled)
    calls = [asyncio.ensure_future(gather(i)) for i in range(3)]
    await asyncio.sleep(0)
    calls[1].cancel()
    assert await calls[0] == 0
    assert await calls[2] == 4
    assert asked == [0, 2]


async def test_a_closed_worker_says_so():
    worker = Worker()
    worker.close()
    with pytest.raises(EngineError, match="this engine was closed"):
        await worker.run(lambda: 1)
