"""One policy that cannot be taken up again stops nobody else, and loses nothing."""

import asyncio
import gc
from pathlib import Path

import pytest

from fettle.calls import Forward, Load, Pin, Restore, Save
from fettle.config import CausalLM
from fettle.errors import StorageError
from tests.broker.processes import REQUEST, STEP, Process, call, data, done, opened
from tests.broker.tallies import REFUSED


def states(process: Process, policy: str = "run") -> list[Path]:
    """The files of its snapshots, the newest last."""
    folders = [each.folder for each in process.broker._desk.logs[policy].written.snapshots]
    return [process.folder / "journal" / "snapshots" / policy / folder / "state.json" for folder in folders]


async def test_the_other_policies_go_on_and_it_goes_on_once_it_is_mended(started):
    one = await started()
    opened(one)
    opened(one, "other")
    pin, _ = await done(one, Pin(), call(1))
    await one.broker.snapshot_all()
    whole = {path: path.read_text() for path in states(one)}
    one.backend.open_gate.clear()
    one.broker.submit("run", 0, 2, Forward(data(5), CausalLM()))
    await one.broker.submit("run", 0, 3, call(2)).durable()
    one.broker.draw("drawn", pin.id, [REQUEST])
    for path in whole:
        path.write_text("{")
    unasked = []
    asyncio.get_running_loop().set_exception_handler(lambda _, told: unasked.append(told))
    two = await started()
    assert list(two.backend.policies) == ["other"]
    await two.broker.submit("other", 0, 0, call(3)).result()
    await two.broker.drained()
    for use in (
        lambda: two.broker.submit("run", 0, 4, call(4)),
        lambda: two.broker.draw("another", pin.id, [REQUEST]),
    ):
        with pytest.raises(StorageError, match="the policy run cannot be taken up again"):
            use()
    for waiting in (
        two.broker.promise("run.0.3").result(),
        two.broker.promise("drawn").result(),
        two.broker.attach("run"),
        two.broker.park("run"),
        two.broker.written_down("run"),
    ):
        with pytest.raises(StorageError, match="the policy run cannot be taken up again"):
            await waiting
    assert not two.broker.promise("run.0.3").done
    gc.collect()
    assert not unasked
    for path, content in whole.items():
        path.write_text(content)
    three = await started()
    assert (await three.broker.promise("run.0.3").result()).num_tokens == 2
    assert len(await three.broker.promise("drawn").result()) == 2
    assert three.backend.done.count("forward_backward run") == 1


async def test_where_the_newest_snapshot_cannot_be_read_the_one_before_it_is_taken(started, caplog):
    one = await started()
    opened(one)
    await done(one, call(1), Pin())
    await one.broker.snapshot_all()
    await done(one, call(2), STEP, Pin(), Save("first"), first=2)
    await one.broker.snapshot_all()
    await done(one, call(3), first=6)
    expected, pins = one.tally(), dict(one.backend.pins)
    states(one)[-1].write_text("{")
    two = await started()
    assert "an older one is" in caplog.text
    assert (two.tally(), two.backend.pins) == (expected, pins)
    assert two.backend.done[0] == "revive run"
    await two.broker.snapshot_all()
    three = await started()
    assert (three.tally(), three.backend.pins) == (expected, pins)


async def test_a_policy_that_cannot_be_made_as_it_was_is_left_as_it_is_written(started, monkeypatch):
    one = await started()
    opened(one)
    (saved,) = await done(one, Save("first"))
    path = Path((await saved.result()).path) / "state.json"
    monkeypatch.setattr(one.backend, "snapshot", None)  # so that the journal alone holds it
    await one.broker.open("two", Load(str(path.parent), optimizer=True)).result()
    content = path.read_text()
    path.unlink()
    two = await started()
    assert list(two.backend.policies) == ["run"]
    with pytest.raises(StorageError, match="the policy two cannot be taken up again"):
        two.broker.submit("two", 0, 0, call(1))
    path.write_text(content)
    three = await started()
    await three.broker.submit("two", 0, 0, call(1)).result()


async def test_a_parked_policy_is_taken_back_from_an_older_snapshot_where_the_newest_cannot_be_read(started, caplog):
    one = await started()
    opened(one)
    await done(one, call(1), Pin())
    await one.broker.snapshot_all()
    gone, _, kept = await done(one, Pin(), call(2), Pin(), first=2)
    await done(one, STEP, Save("first"), call(REFUSED), first=5)
    expected = one.tally()
    await one.broker.park("run")
    one.broker.release(gone.id)
    states(one)[-1].write_text("{")
    await done(one, Forward(data(5), CausalLM()), first=8)
    assert "an older one is" in caplog.text
    assert one.tally() == expected
    assert {gone.id, kept.id} & set(one.backend.pins) == {kept.id}
    await done(one, call(3), first=9)
    await one.broker.snapshot_all()
    two = await started()
    assert two.tally() == one.tally()
    assert two.backend.done == ["revive run"]


async def test_what_one_policy_hangs_on_the_others_do_not_wait_for(started):
    one = await started()
    opened(one)
    opened(one, "other")
    (saved,) = await done(one, Save("first"))
    folder = (await saved.result()).path
    await one.broker.submit("other", 0, 0, Restore(folder, optimizer=True)).result()
    await one.broker.snapshot_all()
    await done(one, call(1), first=1)
    for path in states(one):
        path.write_text("{")
    two = await started()
    before = states(two, "other")
    await two.broker.submit("other", 0, 1, call(2)).result()
    await two.broker.written_down_without(folder)
    assert states(two, "other") == before
    await two.broker.snapshot_all()
    assert states(two, "other") != before


async def test_a_policy_that_took_a_folder_up_hangs_on_it_until_it_is_written_down(started, monkeypatch):
    one = await started()
    opened(one)
    (saved,) = await done(one, Save("first"))
    folder = (await saved.result()).path
    monkeypatch.setattr(one.backend, "snapshot", None)
    await done(one, Restore(folder, optimizer=True), first=1)
    assert one.broker.made_of("run") == "model"
    with pytest.raises(StorageError, match="could not be written down"):
        await one.broker.written_down_without(folder)
    two = await started()
    assert two.broker._desk.logs["run"].hangs_on(folder)
    await two.broker.written_down_without(folder)
    (Path(folder) / "state.json").unlink()
    three = await started()
    assert three.tally() == two.tally()


async def test_a_lost_policy_that_hangs_on_a_folder_keeps_it(started):
    one = await started()
    opened(one)
    (saved,) = await done(one, Save("first"))
    folder = (await saved.result()).path
    one.backend.snapshot = None
    await done(one, Restore(folder, optimizer=True), first=1)
    state = Path(folder) / "state.json"
    content = state.read_text()
    state.write_text("{")
    two = await started()
    with pytest.raises(StorageError, match="the policy run cannot be taken up again"):
        await two.broker.written_down_without(folder)
    state.write_text(content)
    three = await started()
    await three.broker.written_down_without(folder)
