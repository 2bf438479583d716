"""What recovery repeats is bounded by the seconds that were computed, wherever it is cut off itself."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fettle.broker import snapshots
from fettle.broker.revival import FOLDER
from fettle.config import JournalSettings
from tests.broker.processes import SETTINGS, Process, call, done, opened

SECONDS = 0.004
"""Of one operation."""
OFTEN = SETTINGS.model_copy(update={"snapshot_seconds": 4 * SECONDS, "snapshots_kept": 1000})
"""Keeping all, since a copy takes its time: nothing that was said when it began may be gone when it ends."""


@pytest.fixture(autouse=True)
def worth(monkeypatch: pytest.MonkeyPatch) -> None:
    """That writing a tally takes as long as computing one is not the matter here."""
    monkeypatch.setattr(snapshots, "WORTH", 0)


def slow(process: Process, before: Callable[[int], object] = lambda n: None) -> list[str]:
    """Have operations take their time, and ``before`` be told of each; the policies of those that were carried out."""
    carried_out, computed = process.backend.forward_backward, []

    def slowly(policy, data, loss):
        before(len(computed))
        computed.append(policy)
        time.sleep(SECONDS)
        return carried_out(policy, data, loss)

    process.backend.forward_backward = slowly
    return computed


def copied_at(process: Process, operation: int, to: Path) -> list[str]:
    """Have the journal copied, as a kill leaves it, before the operation of that number is carried out."""

    def copying(n: int) -> None:
        if n == operation:
            time.sleep(20 * SECONDS)  # in which what was written down is said
            journal, copy = process.folder / "journal", to / "journal"
            shutil.copytree(journal, copy, ignore=shutil.ignore_patterns(FOLDER))
            shutil.copytree(journal / FOLDER, copy / FOLDER)  # after what refers to them

    return slow(process, copying)


async def repeated(folder: Path, settings: JournalSettings = SETTINGS) -> tuple[int, str]:
    """How many operations a process that goes on from there repeats before it is there, and what it comes to."""
    process = Process(folder, settings)
    computed = slow(process)
    await process.started()
    times = len(computed)
    await process.broker.drained()
    tally = process.tally()
    process.killed()
    return times, tally


async def test_a_recovery_that_is_killed_is_gone_on_with(started, tmp_path):
    one = await started()
    await opened(one).result()
    await one.written()  # with nothing in it, so that all is repeated
    for promise in await done(one, *(call(n) for n in range(30))):
        await promise.result()  # which is told once the call is written down
    expected = one.tally()
    one.killed()
    two = Process(tmp_path, OFTEN)
    copied_at(two, 20, tmp_path / "killed")
    await two.started()
    await two.broker.drained()  # those whose answers were not written when the first was killed
    two.killed()
    times, tally = await repeated(tmp_path / "killed")
    assert times < 20
    assert tally == expected


async def test_many_kills_do_not_add_up(started):
    """Each comes long before what its process has computed is worth a snapshot."""
    one = await started(OFTEN)
    await opened(one).result()
    await one.written()
    one.killed()
    times = []
    for n in range(12):
        process = Process(one.folder, OFTEN)
        computed = slow(process)
        await process.started()
        times.append(len(computed))
        await done(process, call(2 * n), call(2 * n + 1), first=2 * n)
        await process.written()
        process.killed()
    assert max(times) <= 6


async def test_operations_that_wait_do_not_keep_it_from_being_written_down(started, tmp_path):
    one = await started(OFTEN)
    await opened(one).result()
    copied_at(one, 20, tmp_path / "killed")
    await done(one, *(call(n) for n in range(30)))
    times, tally = await repeated(tmp_path / "killed")
    assert times < 20
    assert tally == one.tally()


async def test_all_policies_together_stay_within_the_bound(started):
    one = await started(OFTEN)
    names = [f"run-{n}" for n in range(5)]
    for name in names:
        await opened(one, name).result()
        await one.written()
    slow(one)
    for n in range(10):
        for name in names:
            await one.broker.submit(name, 0, n, call(n)).result()
            await one.written()
    two = Process(one.folder, OFTEN)
    computed = slow(two)
    one.killed()
    await two.started()
    two.killed()
    assert len(computed) <= 4


async def test_what_takes_long_to_be_written_is_written_seldom(started, monkeypatch):
    monkeypatch.setattr(snapshots, "WORTH", 10)
    one = await started(OFTEN)
    write, written = one.backend.snapshot, []

    def long(policy: str, folder: Path) -> None:
        written.append(policy)
        time.sleep(15 * SECONDS)
        write(policy, folder)

    monkeypatch.setattr(one.backend, "snapshot", long)
    await opened(one).result()
    await one.written()
    slow(one)
    for n in range(20):
        await done(one, call(n), first=n)
        await one.written()
    assert len(written) == 1
