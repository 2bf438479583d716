"""A policy that counts as written down is on the disk, whatever becomes of what it was made of."""

import threading
from pathlib import Path

import pytest

from fettle.broker import Broker
from fettle.calls import Create, Load, Save
from fettle.config import PolicySpec
from fettle.errors import StorageError
from tests.broker.processes import Process, call, done, opened
from tests.broker.tallies import TallyBackend


async def loaded(process: Process) -> Path:
    """Open the policy "two" from a checkpoint, whose file this is."""
    opened(process)
    _, saved = await done(process, call(1), Save("first"))
    path = Path((await saved.result()).path)
    await process.written()
    process.broker.open("two", Load(str(path), optimizer=True))
    return path / "state.json"


@pytest.mark.parametrize("every", [False, True])
async def test_what_is_being_written_down_is_waited_for(started, monkeypatch, every):
    one = await started()
    gate, write = threading.Event(), one.backend.snapshot

    def slow(policy: str, folder: Path) -> None:
        if policy == "two":
            gate.wait(60)
        write(policy, folder)

    monkeypatch.setattr(one.backend, "snapshot", slow)
    checkpoint = await loaded(one)
    await one.broker.promise("two.open").settled()
    threading.Timer(0.1, gate.set).start()
    await (one.broker.snapshot_all() if every else one.broker.written_down("two"))
    checkpoint.unlink()
    expected = one.tally("two")
    two = await started()
    assert two.tally("two") == expected


@pytest.mark.parametrize("error", [StorageError("the disk is full"), OSError(28, "No space left on device")])
async def test_what_could_not_be_written_down_is_said(started, monkeypatch, error):
    one = await started()
    write = one.backend.snapshot

    def fails(policy: str, folder: Path) -> None:
        if policy == "two":
            raise error
        write(policy, folder)

    monkeypatch.setattr(one.backend, "snapshot", fails)
    await loaded(one)
    await done(one, call(2), first=2)
    for _ in range(2):
        with pytest.raises(StorageError, match="the policy two could not be written down"):
            await one.broker.written_down("two")
    with pytest.raises(StorageError, match="the policy two could not be written down"):
        await one.broker.snapshot_all()
    await one.broker.written_down("run")
    assert one.broker._desk.logs["run"].written.begin == (0, 3)
    with pytest.raises(StorageError, match="the policy two could not be written down"):
        await one.broker.park("two")
    monkeypatch.setattr(one.backend, "snapshot", write)
    await one.broker.written_down("two")
    await one.broker.park("two")
    assert list(one.backend.policies) == ["run"]


async def test_a_parked_policy_is_written_down_whoever_holds_it_next(started):
    one = await started()
    opened(one)
    await done(one, call(1))
    await one.broker.park("run")
    await one.broker.attach("run")
    await one.broker.written_down("run")
    assert one.broker.policies()["run"].parked


async def test_without_a_journal_there_is_nothing_to_wait_for(tmp_path):
    broker = Broker(TallyBackend(tmp_path))
    await broker.open("run", Create(PolicySpec(model="model"))).result()
    await broker.written_down("run")
    await broker.snapshot_all()
    broker.close()
