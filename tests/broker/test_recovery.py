"""What was acknowledged is never lost, and nothing is done twice: brokers that end and are made anew."""

import asyncio
import logging
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from fettle.broker import Broker, engine, past
from fettle.calls import Close, Create, Forward, ForwardBackward, Load, Pin, Restore, Save
from fettle.config import CausalLM, JournalSettings, PolicySpec
from fettle.errors import CancelledError, LossInputError, NotFoundError, SequenceError, StorageError
from tests.broker.processes import REQUEST, SETTINGS, STEP, call, data, done, opened
from tests.broker.tallies import REFUSED, TallyBackend


async def test_every_operation_that_was_taken_in_is_carried_out_once_after_a_kill(started, tmp_path):
    one = await started()
    opened(one)
    await done(one, call(1), call(REFUSED), call(2), STEP)
    one.backend.open_gate.clear()
    held = [one.broker.submit("run", 0, 4, Forward(data(5), CausalLM())), one.broker.submit("run", 0, 5, call(3))]
    await asyncio.gather(*(promise.durable() for promise in held))
    two = await started()
    assert two.broker.policies()["run"].next_seq == 6
    await two.broker.drained()
    straight = TallyBackend(tmp_path / "straight")
    broker = Broker(straight)
    broker.open("run", Create(PolicySpec(model="model")))
    for seq, each in enumerate([call(1), call(REFUSED), call(2), STEP, Forward(data(5), CausalLM()), call(3)]):
        broker.submit("run", 0, seq, each)
    await broker.drained()
    broker.close()
    assert two.tally() == straight.policies["run"]["tally"]


async def test_a_client_that_sends_again_gets_the_same_answer(started):
    one = await started()
    opened(one)
    promises = await done(one, call(1), call(REFUSED), STEP)
    before = await promises[0].result()
    two = await started()
    again = await done(two, call(1), call(REFUSED), STEP)
    found = await again[0].result()
    assert found.loss == before.loss
    assert np.array_equal(found.logprobs[0], before.logprobs[0])
    with pytest.raises(LossInputError, match="is refused"):
        await again[1].result()
    assert (await again[2].result()).policy_version == 1
    with pytest.raises(SequenceError, match="different contents"):
        two.broker.submit("run", 0, 0, call(2))
    assert two.backend.done.count("refused run") == 0
    assert opened(two).done
    assert opened(two).seconds == opened(one).seconds > 0
    await two.broker.snapshot_all()
    three = await started()
    assert (opened(three).seconds, opened(three).answered_at) == (opened(one).seconds, opened(one).answered_at)


async def test_recovery_goes_on_from_the_newest_snapshot_and_says_what_it_repeated(started, caplog):
    one = await started()
    opened(one)
    await done(one, call(1), STEP)
    await one.broker.snapshot_all()
    await done(one, call(2), STEP, first=2)
    expected = one.tally()
    with caplog.at_level(logging.INFO, "fettle.broker.recovery"):
        two = await started()
    assert two.tally() == expected
    assert two.backend.done == ["revive run", "forward_backward run", "optim_step run"]
    assert "recovered 1 policies: 3 operations were repeated" in caplog.text


async def test_a_journal_of_another_format_is_not_read(started, tmp_path, monkeypatch):
    monkeypatch.setattr(past, "FORMAT", 2)
    monkeypatch.setattr(engine, "FORMAT", 1)
    await started()
    with pytest.raises(StorageError, match="written in format 1, and this version reads 2"):
        await started()
    monkeypatch.setattr(past, "FORMAT", 1)
    await started()


async def test_a_holder_that_was_shut_out_stays_so(started):
    one = await started()
    opened(one)
    await done(one, call(1))
    stranded = one.broker.submit("run", 0, 5, call(5))
    assert await one.broker.attach("run") == 1
    await done(one, call(2), incarnation=1)
    two = await started()
    assert two.broker.policies()["run"].incarnation == 1
    assert two.broker.policies()["run"].next_seq == 1
    with pytest.raises(SequenceError, match="load the policy again"):
        two.broker.submit("run", 0, 1, call(1))
    with pytest.raises(SequenceError, match="never came its turn"):
        await two.broker.promise(stranded.id).result()
    assert await two.broker.attach("run") == 2


async def test_operations_out_of_turn_wait_on_for_the_missing_one(started):
    one = await started()
    opened(one)
    one.broker.submit("run", 0, 1, call(2))
    expected = TallyBackend(Path("unused"))
    expected.create_policy("run", PolicySpec(model="model"))
    for n in (1, 2):
        expected.forward_backward("run", data(n), CausalLM())
    two = await started()
    assert two.broker.policies()["run"].next_seq == 0
    await done(two, call(1))
    await two.broker.drained()
    assert two.tally() == expected.policies["run"]["tally"]


async def test_a_cancelled_operation_is_not_carried_out_after_a_kill(started):
    one = await started()
    opened(one)
    await one.broker.drained()
    one.backend.open_gate.clear()
    one.broker.submit("run", 0, 0, Forward(data(1), CausalLM()))
    cancelled = one.broker.submit("run", 0, 1, call(1))
    assert cancelled.cancel()
    two = await started()
    await two.broker.drained()
    assert "forward_backward run" not in two.backend.done
    with pytest.raises(CancelledError):
        await two.broker.promise(cancelled.id).result()


async def test_pins_live_on_and_unfinished_draws_are_drawn_again(started):
    one = await started()
    opened(one)
    pin, gone, _ = await done(one, Pin(), Pin(), STEP)
    answered = one.broker.draw("answered", pin.id, [REQUEST])
    expected = [completion.tokens for completion in await answered.result()]
    one.broker.release(gone.id)
    one.backend.open_gate.clear()
    one.broker.submit("run", 0, 3, Forward(data(1), CausalLM()))
    unfinished = one.broker.draw("unfinished", pin.id, [REQUEST])
    assert not unfinished.done
    two = await started()
    assert [completion.tokens for completion in await two.broker.promise("unfinished").result()] == expected
    assert [completion.tokens for completion in await two.broker.promise("answered").result()] == expected
    assert list(two.backend.pins) == [pin.id]
    with pytest.raises(NotFoundError, match="was released"):
        two.broker.draw("new", gone.id, [REQUEST])
    assert (await two.broker.pinned(pin.id).sample([1, 2], 1, REQUEST.params))[0].tokens == expected[0]


async def test_pins_in_a_snapshot_that_were_let_go_since_do_not_come_back(started):
    one = await started()
    opened(one)
    kept, gone = await done(one, Pin(), Pin())
    await one.broker.snapshot_all()
    one.broker.release(gone.id)
    two = await started()
    assert list(two.backend.pins) == [kept.id]


async def test_a_checkpoint_that_was_written_before_the_kill_is_not_written_again(started):
    """Whether its answer was written down too, or not."""
    one = await started()
    opened(one)
    saved, _ = await done(one, Save("first"), call(1))
    journal = one.broker._journal
    two_lost = one.broker.submit("run", 0, 2, Save("second"))
    journal.failed = StorageError("killed")  # before the answer can be written down
    await two_lost.settled()
    assert (one.folder / "checkpoints" / "second").is_dir()
    two = await started()
    await two.broker.drained()
    assert await two.broker.promise(saved.id).result() == await saved.result()
    assert (await two.broker.promise("run.0.2").result()).path.endswith("second")
    assert sorted(path.name for path in (two.folder / "checkpoints").iterdir()) == ["first", "second"]


async def test_what_was_loaded_and_restored_needs_its_checkpoint_no_longer(started):
    one = await started()
    opened(one)
    (saved,) = await done(one, Save("first"))
    path = (await saved.result()).path
    await one.broker.open("loaded", Load(path, optimizer=True)).result()
    await done(one, call(1), Restore(path, optimizer=False), first=1)
    expected = one.tally(), one.tally("loaded")
    await asyncio.gather(*(one.broker.written_down(name) for name in ("run", "loaded")))
    (Path(path) / "state.json").unlink()
    two = await started()
    assert (two.tally(), two.tally("loaded")) == expected


async def test_a_snapshot_that_is_due_while_one_is_written_is_taken_after_it(started, monkeypatch):
    one = await started()
    disk, sync = threading.Event(), os.fdatasync

    def when_the_disk_has_time(file: int) -> None:
        disk.wait(60)
        sync(file)

    monkeypatch.setattr(os, "fdatasync", when_the_disk_has_time)
    await opened(one).result()
    (saved,) = await done(one, Save("first"))
    await done(one, Restore((await saved.result()).path, optimizer=False), first=1)
    disk.set()
    await one.written()
    assert one.broker._desk.logs["run"].written.begin == (0, 2)


async def test_a_closed_policy_is_gone_and_its_answers_are_not(started):
    one = await started()
    opened(one)
    opened(one, "other")
    promises = await done(one, call(1), Close())
    two = await started()
    assert list(two.broker.policies()) == ["other"]
    assert "run" not in two.backend.policies
    assert (await two.broker.promise(promises[0].id).result()).num_tokens == 2
    assert await two.broker.submit("run", 0, 1, Close()).result() is None
    with pytest.raises(NotFoundError):
        two.broker.submit("run", 0, 2, call(1))


async def test_acknowledged_answers_are_forgotten_for_good(started):
    one = await started()
    opened(one)
    for promise in await done(one, *(call(n) for n in range(100))):
        promise.acknowledge()
    expected = one.tally()
    two = await started()
    with pytest.raises(NotFoundError, match="acknowledged"):
        two.broker.promise("run.0.0")
    assert two.tally() == expected
    assert len(two.broker._ledger.promises()) < 50


async def test_a_parked_policy_comes_back_with_its_next_operation_or_draw(started):
    one = await started()
    opened(one)
    pin, _ = await done(one, Pin(), call(1))
    expected, before = one.tally(), await one.broker.draw("first", pin.id, [REQUEST]).result()
    await one.broker.park("run")
    assert not one.backend.policies
    assert one.broker.policies()["run"].parked
    after = await one.broker.draw("second", pin.id, [REQUEST]).result()
    assert [c.tokens for c in after] == [c.tokens for c in before]
    assert one.tally() == expected
    await one.broker.park("run")
    two = await started()
    assert two.broker.policies()["run"].parked
    assert not two.backend.policies
    await done(two, call(2), first=2)
    three = await started()
    assert three.tally() == two.tally()


async def test_snapshots_are_taken_after_so_many_operations_and_only_the_newest_are_kept(started):
    settings = SETTINGS.model_copy(update={"snapshot_operations": 5})
    one = await started(settings)
    opened(one)
    for n in range(40):
        await done(one, call(n), first=n)
        await one.written()
    expected = one.tally()
    two = await started(settings)
    assert two.tally() == expected
    assert len(two.backend.done) <= 6
    assert len(list((two.folder / "journal" / "snapshots" / "run").iterdir())) == settings.snapshots_kept


async def test_the_journal_of_thousands_of_operations_stays_small(started):
    settings = JournalSettings(snapshot_operations=50, segment_mib=1, answers_mib=1)
    one = await started(settings)
    opened(one)
    large = ForwardBackward(data(*range(1000, 2000)), CausalLM())
    for n in range(0, 2000, 20):
        for promise in await done(one, *[large] * 20, first=n):
            promise.acknowledge()
    written = one.broker._journal.segments[-1]
    assert written > 10
    assert one.broker.counts()["journal_bytes"] < 6 << 20
    expected = one.tally()
    two = await started(settings)
    assert two.tally() == expected
    assert two.broker.policies()["run"].next_seq == 2000


async def test_answers_that_are_still_wanted_are_carried_over(started):
    settings = JournalSettings(snapshot_operations=50, segment_mib=1)
    one = await started(settings)
    opened(one)
    opened(one, "idle", seed=1)
    wanted = one.broker.submit("idle", 0, 0, call(7))
    waiting = one.broker.submit("idle", 0, 5, call(8))
    answer = await wanted.result()
    large = ForwardBackward(data(*range(1000, 2000)), CausalLM())
    for n in range(0, 1000, 20):
        for promise in await done(one, *[large] * 20, first=n):
            promise.acknowledge()
    assert one.broker._journal.segments[0] > 1
    expected = one.tally("idle")
    two = await started(settings)
    assert (await two.broker.promise(wanted.id).result()).loss == answer.loss
    assert not two.broker.promise(waiting.id).done
    assert two.tally("idle") == expected


async def test_answers_in_memory_stay_under_their_limit(started):
    one = await started(JournalSettings(answers_mib=1, snapshot_operations=50))
    opened(one)
    large = ForwardBackward(data(*range(1000, 3000)), CausalLM())
    for n in range(0, 400, 20):
        await done(one, *[large] * 20, first=n)
        assert one.broker.counts()["answers_bytes"] <= 1 << 20
    with pytest.raises(SequenceError, match="no longer kept"):
        one.broker.submit("run", 0, 0, large)
