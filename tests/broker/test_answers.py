"""Who is told of answers, and what they are worth while the journal cannot be written."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from fettle.broker.journal import Place
from fettle.broker.promises import Keeping, Promise
from fettle.calls import Forward
from fettle.config import CausalLM
from fettle.errors import CancelledError, NotFoundError, StorageError
from fettle.frames import Tree
from tests.broker.processes import REQUEST, STEP, Process, call, data, done, opened


async def test_everything_that_is_answered_from_here_on_is_told_once_also_what_was_taken_up(started):
    one = await started()
    opened(one)
    await done(one, call(1), STEP)
    one.backend.open_gate.clear()
    one.broker.submit("run", 0, 2, Forward(data(5), CausalLM()))
    one.broker.submit("run", 0, 3, call(2)).acknowledge()
    two = await started()
    await two.broker.drained()
    two.backend.open_gate.clear()
    under_way = two.broker.submit("run", 0, 4, Forward(data(6), CausalLM()))
    told: list[str] = []
    two.broker.when_answered(lambda promise: told.append(promise.id))
    two.broker.draw("drawn", "model", [REQUEST])
    two.backend.open_gate.set()
    await asyncio.gather(under_way.settled(), two.broker.promise("drawn").settled())
    await two.broker.drained()
    assert sorted(told) == ["drawn", "run.0.2", "run.0.3", "run.0.4"]


@pytest.fixture
def full(monkeypatch):
    """Leaves a journal no room for answers, while it is entered."""

    @contextmanager
    def no_room(process: Process) -> Iterator[None]:
        journal = process.broker._journal
        append = journal.append

        def refused(tree: Tree) -> Place:
            if tree["record"] == "answer":
                raise StorageError("the disk is full")
            return append(tree)

        with monkeypatch.context() as patched:
            patched.setattr(journal, "append", refused)
            yield

    return no_room


async def test_answers_that_find_no_room_are_told_in_their_order_once_there_is_some(started, full):
    one = await started()
    await opened(one).result()
    told: list[str] = []
    one.broker.when_answered(lambda promise: told.append(promise.id))
    with full(one):
        first = one.broker.submit("run", 0, 0, STEP)
        while not one.broker._ledger.unwritten(first):
            await one.broker.run(lambda: None)
    second = one.broker.submit("run", 0, 1, STEP)
    assert (await second.result()).policy_version == 2
    assert told == ["run.0.0", "run.0.1"]
    assert one.broker.policies()["run"].version == 2
    two = await started()
    assert two.broker.policies()["run"].version == 2


async def test_a_snapshot_does_not_go_past_an_answer_that_is_not_written_down(started, full):
    one = await started()
    opened(one)
    await done(one, call(1))
    await one.broker.written_down("run")
    with full(one):
        promise = one.broker.submit("run", 0, 1, STEP)
        with pytest.raises(StorageError, match="the policy run could not be written down"):
            await one.broker.written_down("run")
        assert not promise.done
        two = await started()
    assert (await two.broker.submit("run", 0, 1, STEP).result()).policy_version == 1
    assert two.backend.policies["run"]["version"] == 1


async def test_what_a_broken_disk_leaves_undecided_is_told_by_the_next_process_only(started):
    one = await started()
    await opened(one).result()
    told: list[str] = []
    one.broker.when_answered(lambda promise: told.append(promise.id))
    one.backend.open_gate.clear()
    held = one.broker.submit("run", 0, 0, Forward(data(5), CausalLM()))
    after = one.broker.submit("run", 0, 1, call(7))
    await after.durable()
    one.broker._journal._fail(OSError(5, "Input/output error"))
    one.backend.open_gate.set()
    for promise in (held, after):
        with pytest.raises(StorageError, match="nothing more is taken in"):
            await promise.result(timeout=20)
        assert not promise.done
    await one.broker.drained()
    with pytest.raises(StorageError, match="nothing more is taken in"):
        await one.broker.park("run")
    assert told == []
    two = await started()
    assert (await two.broker.promise("run.0.1").result()).num_tokens == 2


async def test_what_counts_as_cancelled_is_not_carried_out_after_a_kill(started, full):
    one = await started()
    await opened(one).result()
    one.backend.open_gate.clear()
    one.broker.submit("run", 0, 0, Forward(data(5), CausalLM()))
    promise = one.broker.submit("run", 0, 1, call(7))
    with full(one):
        for _ in range(2):
            with pytest.raises(StorageError, match="cannot be written down yet"):
                promise.cancel()
    with pytest.raises(CancelledError):
        await promise.result(timeout=20)
    assert not promise.cancel()
    two = await started()
    await two.broker.drained()
    assert "forward_backward run" not in two.backend.done


async def test_a_clock_that_is_set_forward_costs_no_answer_that_is_wanted(started, monkeypatch):
    real = time.time
    one = await started()
    opened(one)
    first, *_ = await done(one, *[call(1)] * 20)
    monkeypatch.setattr(time, "time", lambda: real() + 10**6)
    one.broker._ledger._answers.expire()
    assert one.broker.promise(first.id) is first
    two = await started()
    assert two.broker.promise(first.id).done


async def test_answers_that_nobody_asked_for_in_time_are_forgotten(started, monkeypatch):
    one = await started()
    opened(one)
    first, *_ = await done(one, call(1), call(2))
    now = time.monotonic() + one.settings.answers_seconds + 1
    monkeypatch.setattr(time, "monotonic", lambda: now)
    one.broker._ledger._answers.expire()
    with pytest.raises(NotFoundError, match="it expired"):
        one.broker.promise(first.id)


async def test_one_answer_that_was_given_while_the_clock_was_wrong_ages_no_other(started, monkeypatch):
    real = time.time
    one = await started()
    opening = opened(one)
    first, *_ = await done(one, call(1))
    monkeypatch.setattr(time, "time", lambda: real() + 10**6)
    await done(one, call(2), first=1)
    monkeypatch.setattr(time, "time", real)
    two = await started()
    for promise in (opening, first):
        assert two.broker.promise(promise.id).done
    two.broker._ledger._answers.expire()
    assert two.broker.promise(first.id).done


async def test_whoever_asks_in_the_turn_of_the_answer_finds_what_is_noted_of_it():
    keeping = Keeping(durable=_nothing, cancelled=lambda _: False, acknowledged=lambda _: None)
    promise = Promise("p.1.1", policy="p", tenant="", kind="load", tokens=0, said="", keeping=keeping)
    noted: list[str] = []
    promise.when_done(lambda done: noted.append(done.id))
    promise.settle(None)
    await promise.result()
    assert noted == ["p.1.1"]


async def _nothing(_: Promise) -> None:
    pass
