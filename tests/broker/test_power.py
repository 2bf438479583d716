"""What was said to be durable is there after the machine went down, of whose disk only what was synced is left."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fettle.calls import ForwardBackward
from fettle.config import CausalLM, JournalSettings
from tests.broker.processes import Process, call, data, opened

LARGE = ForwardBackward(data(*range(1000, 3000)), CausalLM())


@pytest.fixture
def synced(monkeypatch) -> dict[str, int]:
    """How much of each file of a journal is on the disk."""
    found: dict[str, int] = {}
    for name in ("fsync", "fdatasync"):
        real = getattr(os, name)

        def noting(file: int, real: Callable[[int], None] = real) -> None:
            size = os.fstat(file).st_size
            real(file)
            found[Path(f"/proc/self/fd/{file}").readlink().name] = size

        monkeypatch.setattr(os, name, noting)
    return found


def left(folder: Path, synced: dict[str, int], after: Path) -> Path:
    """What the disk holds of a journal, which is still in use."""
    shutil.copytree(folder / "journal", after / "journal")
    for path in (after / "journal").glob("*.log"):
        os.truncate(path, synced.get(path.name, 0))
    return after


async def test_operations_and_answers_that_were_waited_for_are_there(tmp_path, synced):
    settings = JournalSettings(segment_mib=1, snapshot_operations=10**6, snapshot_seconds=10**6)
    one = await Process(tmp_path / "one", settings).started()
    opened(one)
    for n in range(60):
        await one.broker.submit("run", 0, n, LARGE).durable()
    await one.broker.drained()
    expected = one.tally()
    two = await Process(left(tmp_path / "one", synced, tmp_path / "two"), settings).started()
    assert len(list(two.broker._journal.segments)) > 2
    await two.broker.drained()
    assert two.broker.policies()["run"].next_seq == 60
    assert two.tally() == expected
    one.killed()
    two.killed()


async def test_a_policy_that_is_written_down_needs_nothing_that_was_not_synced(tmp_path, synced):
    settings = JournalSettings(snapshot_operations=10**6, snapshot_seconds=10**6)
    one = await Process(tmp_path / "one", settings).started()
    opened(one)
    await one.broker.submit("run", 0, 0, call(1)).result()
    await one.broker.written_down("run")
    two = await Process(left(tmp_path / "one", synced, tmp_path / "two"), settings).started()
    assert two.backend.done == ["revive run"]
    assert two.tally() == one.tally()
    one.killed()
    two.killed()
