"""One thread, calls in order, and calls of one turn joined into a batch."""

import asyncio
import gc
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fettle.broker.schedule import Gatherer, WaitingRoom, Worker
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


@pytest.fixture
def held(worker):
    """A worker whose first call is in flight until it is let go, so that what comes after it waits."""
    gate = threading.Event()
    worker.post(gate.wait)
    yield gate
    gate.set()


async def test_small_calls_of_one_tenant_are_not_held_up_by_large_ones_of_another(worker, held):
    done: list[str] = []
    large = [worker.start(lambda: done.append("large"), flow="flood", cost=10_000) for _ in range(20)]
    small = [worker.start(lambda: done.append("small"), flow="other", cost=10) for _ in range(5)]
    held.set()
    await asyncio.gather(*large, *small)
    assert done[:6] == ["large", *["small"] * 5]


async def test_joined_calls_wait_in_the_turns_of_their_flow_and_pay_for_what_they_compute(worker, held):
    done: list[str] = []
    gather = Gatherer(worker, lambda items: [done.append(item) for item in items])
    reading = []
    for _ in range(20):
        reading.append(asyncio.ensure_future(gather("reading", flow="reader", cost=1000)))
        await asyncio.sleep(0.001)
    others = [worker.start(lambda: done.append("other"), flow="other", cost=10) for _ in range(5)]
    held.set()
    await asyncio.gather(*reading, *others)
    assert done[:6] == ["reading", *["other"] * 5]


async def test_a_call_that_was_cancelled_while_it_waited_is_never_begun(worker, held):
    done: list[int] = []
    calls = [worker.start(lambda i=i: done.append(i), flow=f"flow-{i % 2}") for i in range(6)]
    calls[1].cancel()
    calls[4].cancel()
    held.set()
    await asyncio.gather(*calls, return_exceptions=True)
    assert sorted(done) == [0, 2, 3, 5]


async def test_what_is_queued_when_a_worker_closes_is_finished():
    worker = Worker()
    calls = [worker.start(lambda i=i: i, flow=f"flow-{i % 3}") for i in range(30)]
    worker.close()
    assert await asyncio.gather(*calls) == list(range(30))


async def test_a_worker_that_is_forgotten_ends_its_thread():
    worker = Worker()
    thread = await worker.run(threading.current_thread)
    del worker
    gc.collect()
    assert not thread.is_alive()


async def test_a_call_that_fails_and_that_nobody_waits_for_leaves_the_worker_at_work(worker, caplog):
    worker.post(lambda: 1 // 0)
    assert await worker.run(lambda: 1) == 1
    assert "ZeroDivisionError" in caplog.text


def squares(items):
    return [item**2 for item in items]


async def test_all_draws_that_wait_are_one_call_and_each_gets_its_own_answer(worker, held):
    batches: list[list[int]] = []

    def drawn(items):
        batches.append(list(items))
        return squares(items)

    room = WaitingRoom(worker, drawn, budget=1000)
    first = [room.start(i) for i in range(3)]
    await asyncio.sleep(0)
    later = [room.start(i) for i in range(3, 6)]
    assert len(room) == 6
    held.set()
    assert await asyncio.gather(*first, *later) == [0, 1, 4, 9, 16, 25]
    assert batches == [[0, 1, 2, 3, 4, 5]]
    assert await room(9) == 81


async def test_draws_that_come_together_are_one_call_though_the_worker_is_free(worker):
    batches: list[list[int]] = []

    def drawn(items):
        batches.append(list(items))
        return squares(items)

    room = WaitingRoom(worker, drawn, budget=10_000)
    for _ in range(50):
        assert await asyncio.gather(*room.start_all(range(20), costs=[1] * 20)) == squares(range(20))
    assert batches == [list(range(20))] * 50


async def test_a_batch_ends_at_the_budget_and_tenants_share_its_places(worker, held):
    batches: list[list[str]] = []

    def drawn(items):
        batches.append(list(items))
        return items

    room = WaitingRoom(worker, drawn, budget=400, quantum=100)
    draws = [room.start("flood", tenant="flood", cost=100) for _ in range(8)]
    draws += [room.start("other", tenant="other", cost=100) for _ in range(2)]
    held.set()
    await asyncio.gather(*draws)
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert batches[0].count("other") == 2


async def test_training_has_its_turn_between_two_batches_of_draws(worker, held):
    done: list[str] = []

    def drawn(items):
        done.append("draw")
        return items

    room = WaitingRoom(worker, drawn, budget=100)
    draws = [room.start(i, cost=5000) for i in range(3)]
    training = [worker.start(lambda: done.append("train"), flow="tenant", cost=5000) for _ in range(3)]
    held.set()
    await asyncio.gather(*draws, *training)
    assert done == ["draw", "train"] * 3


async def test_tokens_that_were_announced_and_not_drawn_are_given_back(worker, held):
    done: list[str] = []

    def drawn(items):
        done.append("draw")
        return items

    room = WaitingRoom(worker, drawn, budget=1, spent=lambda item, result: 1)
    draws = [room.start(i, cost=100_000) for i in range(4)]
    training = [worker.start(lambda: done.append("train"), flow="tenant", cost=5000) for _ in range(4)]
    held.set()
    await asyncio.gather(*draws, *training)
    assert done == ["draw"] * 4 + ["train"] * 4


async def test_a_draw_that_is_cancelled_while_it_waits_is_not_computed_for(worker, held):
    asked: list[int] = []

    def drawn(items):
        asked.extend(items)
        return squares(items)

    room = WaitingRoom(worker, drawn, budget=1000)
    draws = [room.start(i) for i in range(4)]
    draws[2].cancel()
    held.set()
    assert await asyncio.gather(*draws[:2], draws[3]) == [0, 1, 9]
    assert asked == [0, 1, 3]


async def test_one_draw_at_fault_gets_its_error_and_its_neighbours_their_answers(worker, held):
    def drawn(items):
        if 5 in items:
            raise LossInputError("five is refused")
        return squares(items)

    room = WaitingRoom(worker, drawn, budget=1000)
    draws = [room.start(i) for i in range(8)]
    held.set()
    answers = await asyncio.gather(*draws, return_exceptions=True)
    assert isinstance(answers.pop(5), LossInputError)
    assert answers == [0, 1, 4, 9, 16, 36, 49]


async def test_what_the_engine_fails_at_is_told_to_all_who_were_drawn_for(worker, held):
    def short_of_memory(items):
        raise EngineError("lower engine.sample_tokens")

    room = WaitingRoom(worker, short_of_memory, budget=1000)
    draws = [room.start(i) for i in range(3)]
    held.set()
    answers = await asyncio.gather(*draws, return_exceptions=True)
    assert [str(answer) for answer in answers] == ["lower engine.sample_tokens"] * 3


async def test_draws_that_wait_when_the_worker_closes_are_answered_and_later_ones_refused():
    worker = Worker()
    room = WaitingRoom(worker, squares, budget=2)
    draws = [room.start(i) for i in range(10)]
    worker.close()
    assert await asyncio.gather(*draws) == squares(range(10))
    with pytest.raises(EngineError, match="this engine was closed"):
        await room(1)


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(1, 500), st.sampled_from(["draw", "train", "cancel"])),
        max_size=60,
    )
)
@settings(max_examples=60, deadline=None)
def test_under_random_cancels_nothing_is_lost_doubled_or_out_of_order(steps):
    assert asyncio.run(_all_is_answered_once(steps))


async def _all_is_answered_once(steps) -> bool:
    worker = Worker(quantum=100)
    gate = threading.Event()
    worker.post(gate.wait)
    done: list[tuple[str, int]] = []

    def drawn(items):
        done.extend(items)
        return items

    room = WaitingRoom(worker, drawn, budget=300, quantum=100)
    asked: list[tuple[tuple[str, int], asyncio.Future]] = []
    for number, (tenant, cost, what) in enumerate(steps):
        call = (f"{tenant} {what}", number)
        if what == "draw":
            asked.append((call, room.start(call, tenant=tenant, cost=cost)))
        elif what == "train":
            asked.append((call, worker.start(lambda call=call: done.append(call), flow=tenant, cost=cost)))
        elif asked:
            asked[cost % len(asked)][1].cancel()
    gate.set()
    await asyncio.gather(*[future for _, future in asked], return_exceptions=True)
    worker.close()
    kept = [call for call, future in asked if not future.cancelled()]
    in_order = all(
        [call for call in done if call[0] == flow] == [call for call in kept if call[0] == flow]
        for flow in {call[0] for call in kept}
    )
    return sorted(done) == sorted(kept) and in_order
