"""The journal's files: what a killed process, a full disk and a broken one leave, and what is made of it."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fettle.broker.journal import Journal, entries
from fettle.config import JournalSettings
from fettle.errors import StorageError
from tests.broker.processes import SETTINGS, Process, opened

HEAD = {"record": "head"}


def journal(folder: Path, **settings: int) -> Journal:
    return Journal(folder, JournalSettings(**settings), head=HEAD)


def begun(folder: Path, **settings: int) -> Journal:
    made = journal(folder, **settings)
    list(made.past())
    made.begin()
    return made


def numbers(folder: Path) -> list[int]:
    return [entry.tree["n"] for entry in entries(folder) if "n" in entry.tree]


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.log"))


def handles() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_records_come_back_in_order_with_their_arrays(tmp_path):
    one = begun(tmp_path)
    values = np.arange(5, dtype=np.float32)
    places = [one.append({"n": n, "values": values * n}) for n in range(3)]
    await one.durable(one.position)
    found = [entry for entry in entries(tmp_path) if "n" in entry.tree]
    assert [entry.place for entry in found] == places
    assert np.array_equal(found[2].tree["values"], values * 2)
    assert one.read(places[1])["n"] == 1
    one.close()


async def test_a_record_torn_at_any_byte_is_cut_off_and_those_before_it_stay(tmp_path):
    one = begun(tmp_path / "whole")
    one.append({"n": 0})
    last = one.append({"n": 1, "text": "FJR1 stands in a record too"})
    one.close()
    content = files(tmp_path / "whole")[0].read_bytes()
    for end in range(last.offset, len(content)):
        folder = tmp_path / f"torn-{end}"
        folder.mkdir()
        (folder / "00000001.log").write_bytes(content[:end])
        again = journal(folder)
        found = [entry.tree["n"] for entry in again.past() if "n" in entry.tree]
        assert found == [0]
        assert (folder / "00000001.log").stat().st_size == last.offset
        again.close()


async def test_what_was_written_after_a_torn_end_is_read_with_what_was_before(tmp_path):
    one = begun(tmp_path)
    one.append({"n": 0})
    one.close()
    with files(tmp_path)[0].open("ab") as file:
        file.write(b"FJR1\x10")
    two = begun(tmp_path)
    two.append({"n": 1})
    two.close()
    assert numbers(tmp_path) == [0, 1]


async def test_a_damaged_record_in_the_middle_is_refused_by_file_and_offset(tmp_path):
    one = begun(tmp_path)
    place = one.append({"n": 0, "text": "x" * 50})
    one.append({"n": 1})
    one.close()
    path = files(tmp_path)[0]
    content = bytearray(path.read_bytes())
    content[place.offset + 40] ^= 1
    path.write_bytes(content)
    again = journal(tmp_path)
    with pytest.raises(StorageError, match=rf"{path} is damaged at byte {place.offset}"):
        list(again.past())
    again.close()
    assert path.read_bytes() == content


async def test_only_the_newest_file_may_end_in_a_torn_record(tmp_path):
    for _ in range(2):
        one = begun(tmp_path)
        one.append({"n": 0})
        one.close()
    first = files(tmp_path)[0]
    os.truncate(first, first.stat().st_size - 1)
    again = journal(tmp_path)
    with pytest.raises(StorageError, match=f"{first} is damaged at byte"):
        list(again.past())
    again.close()


async def test_one_process_at_a_time_holds_a_journal(tmp_path):
    one = begun(tmp_path)
    with pytest.raises(StorageError, match="another process holds the journal"):
        journal(tmp_path)
    one.close()
    begun(tmp_path).close()


async def test_files_end_at_their_size(tmp_path):
    one = begun(tmp_path, segment_mib=1)
    values = np.zeros(100_000, np.float32)
    for n in range(10):
        one.append({"n": n, "values": values})
    one.close()
    assert len(files(tmp_path)) == 5
    assert all(path.stat().st_size <= 1 << 20 for path in files(tmp_path))
    assert numbers(tmp_path) == list(range(10))


async def test_those_who_wait_together_are_made_durable_together(tmp_path, monkeypatch):
    synced: list[int] = []
    real = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda file: (synced.append(file), real(file)))
    one = begun(tmp_path)
    positions = []
    for n in range(100):
        one.append({"n": n})
        positions.append(one.position)
    await asyncio.gather(*(one.durable(position) for position in positions))
    assert 1 <= len(synced) <= 5
    one.close()


async def test_what_an_earlier_process_left_in_memory_is_brought_to_the_disk_first(tmp_path, monkeypatch):
    """It counts as durable from then on, to clients that send it again."""
    begun(tmp_path).close()
    synced: list[Path] = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (synced.append(Path(f"/proc/self/fd/{file}").readlink()), real(file)))
    two = begun(tmp_path)
    assert files(tmp_path)[0] in synced
    two.close()


@pytest.fixture
def synced(monkeypatch) -> list[Path]:
    """Files and folders that were brought to the disk."""
    found: list[Path] = []
    for name in ("fsync", "fdatasync"):
        real = getattr(os, name)

        def noting(file: int, real: Callable[[int], None] = real) -> None:
            found.append(Path(f"/proc/self/fd/{file}").readlink())
            real(file)

        monkeypatch.setattr(os, name, noting)
    return found


async def test_folders_that_are_made_are_brought_to_the_disk_with_those_above_them(tmp_path, synced):
    process = await Process(tmp_path / "state" / "service", SETTINGS).started()
    opened(process)
    await process.broker.written_down("run")
    journal = tmp_path / "state" / "service" / "journal"
    above = {tmp_path, tmp_path / "state", tmp_path / "state" / "service", journal, journal / "snapshots"}
    assert above <= set(synced)
    process.broker.close()


async def test_a_disk_that_fails_is_the_end_of_taking_in(tmp_path, monkeypatch):
    one = begun(tmp_path)

    def broken(file: int) -> None:
        raise OSError(5, "Input/output error")

    one.append({"n": 0})
    monkeypatch.setattr(os, "fdatasync", broken)
    with pytest.raises(StorageError, match=r"failed \(Input/output error\), and nothing more is taken in"):
        await one.durable(one.position)
    with pytest.raises(StorageError, match="nothing more is taken in"):
        one.append({"n": 1})
    with pytest.raises(StorageError, match="nothing more is taken in"):
        await one.durable(one.position)
    one.close()


async def test_a_disk_too_full_for_a_further_file_costs_no_file_handles(tmp_path, monkeypatch):
    one = begun(tmp_path, segment_mib=1)
    large = {"n": 0, "values": np.zeros(200_000, np.float32)}
    one.append(large)
    real = os.write

    def full(file: int, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    held = handles()
    monkeypatch.setattr(os, "write", full)
    for _ in range(20):
        with pytest.raises(StorageError, match="free some space"):
            one.append(large)
    monkeypatch.setattr(os, "write", real)
    assert handles() == held
    one.append(large)
    assert len(files(tmp_path)) == 2
    one.close()


FULL = """
import asyncio, os, resource, sys
from pathlib import Path
import numpy as np
from fettle.broker import Broker
from fettle.calls import Create, ForwardBackward
from fettle.config import CausalLM, JournalSettings, PolicySpec
from fettle.errors import StorageError
from fettle.types import datum
from tests.broker.tallies import TallyBackend

async def main(folder):
    settings = JournalSettings(snapshot_operations=10**6, snapshot_seconds=10**6)
    backend = TallyBackend(folder / "checkpoints")
    broker = await Broker.recovered(backend, folder / "journal", settings)
    broker.open("run", Create(PolicySpec(model="model")))
    await broker.drained()
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, most))
    taken = refused = 0
    promises = []
    while refused < 3:
        call = ForwardBackward([datum([1, *range(1000, 2000)], [0] + [1] * 1000)], CausalLM())
        try:
            promises.append(broker.submit("run", 0, taken, call))
            taken += 1
        except StorageError as error:
            assert "free some space" in error.message, error
            refused += 1
    unanswered = sum(not promise.done for promise in promises)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    promises.append(broker.submit("run", 0, taken, call))
    await asyncio.gather(*(promise.result() for promise in promises), *(promise.durable() for promise in promises))
    tally = backend.policies["run"]["tally"]
    broker.close()
    backend = TallyBackend(folder / "checkpoints")
    again = await Broker.recovered(backend, folder / "journal", settings)
    same = backend.policies["run"]["tally"] == tally and again.policies()["run"].next_seq == taken + 1
    again.close()
    print(taken, unanswered, same)

asyncio.run(main(Path(sys.argv[1])))
"""


def test_a_full_disk_refuses_an_operation_whole_and_goes_on_when_there_is_room_again(tmp_path):
    """A limit on the size of files stands for the disk; answers that find no room are given once there is some."""
    told = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert told.returncode == 0, told.stderr
    taken, unanswered, same = told.stdout.split()
    assert int(taken) > 3
    assert int(unanswered) > 0
    assert same == "True"


async def test_a_file_that_cannot_be_deleted_stays_and_is_tried_again(tmp_path, monkeypatch):
    one = begun(tmp_path, segment_mib=1)
    while len(one.segments) < 2:
        one.append({"padding": "x" * 100_000})
    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", lambda *_, **__: tmp_path.rmdir())  # which fails: it is not empty
        with pytest.raises(StorageError, match="cannot be deleted"):
            one.remove(1)
    assert (one.segments, one.failed) == ([1, 2], None)
    one.remove(1)
    assert one.segments == [2]
    one.close()
