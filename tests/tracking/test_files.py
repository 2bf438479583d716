"""Rows and pages outlive crashes, full disks and numbers that JSON does not have."""

import json
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fettle.errors import StorageError
from fettle.tracking import FileTracker, RunFolder, Transcript, read_metrics
from fettle.types import Message
from tests.disks import full_disk


@pytest.fixture
def tracker(folder):
    tracker = FileTracker(folder)
    yield tracker
    tracker.close()


def logged(folder: RunFolder) -> list[tuple[int, float]]:
    return [(row["step"], row["loss"]) for row in read_metrics(folder.metrics_path)]


def test_a_row_is_there_as_soon_as_it_is_logged(folder, tracker):
    tracker.log(1, {"reward/mean": 0.5, "policy/version": 1})
    (line,) = folder.metrics_path.read_text().splitlines()
    row = json.loads(line)
    assert {"step": 1, "reward/mean": 0.5, "policy/version": 1.0}.items() <= row.items()
    assert row["time"] > 0


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=st.floats(), other=st.floats(allow_nan=False))
def test_every_number_comes_back_and_every_line_is_json(folder, tracker, value, other):
    def refused(name):
        raise AssertionError(f"{name} is no JSON")

    tracker.log(7, {"policy/grad_norm": value, "loss": other})
    json.loads(folder.metrics_path.read_text().splitlines()[-1], parse_constant=refused)
    row = read_metrics(folder.metrics_path)[-1]
    assert row["policy/grad_norm"] == value or (math.isnan(value) and math.isnan(row["policy/grad_norm"]))
    assert row["loss"] == other


def test_there_are_no_rows_before_the_first(folder):
    assert read_metrics(folder.metrics_path) == []


def test_steps_that_will_be_done_again_are_dropped(folder, tracker):
    for step in (0, 1, 2, 2, 3, 4):
        tracker.log(step, {"loss": 0.0})
    assert tracker.truncate(2) == 2
    tracker.log(3, {"loss": 0.5})
    assert logged(folder) == [(0, 0.0), (1, 0.0), (2, 0.0), (2, 0.0), (3, 0.5)]


def test_pages_of_steps_that_will_be_done_again_are_dropped(folder, tracker):
    for step in (0, 20, 1_000_000):
        tracker.transcripts(step, [])
    tracker.truncate(20)
    assert sorted(path.name for path in folder.transcripts.iterdir()) == ["step-000000.md", "step-000020.md"]


@pytest.mark.parametrize("torn", [b'{"step": 3, "lo', b"{", b'{"step": 3, "loss": 1.0}', b"\xff\xfe"])
def test_a_torn_last_line_is_dropped(folder, tracker, torn):
    tracker.log(1, {"loss": 0.5})
    tracker.close()
    folder.metrics_path.write_bytes(folder.metrics_path.read_bytes() + torn)
    assert logged(folder) == [(1, 0.5)]
    again = FileTracker(folder)
    assert again.truncate(5) == 1
    again.log(2, {"loss": 0.25})
    again.close()
    assert logged(folder) == [(1, 0.5), (2, 0.25)]


def test_a_row_after_a_torn_line_stands_on_its_own(folder, tracker):
    folder.metrics_path.write_bytes(b'{"step": 1, "loss": 0.5}\n{"step": 2, "lo')
    tracker.log(3, {"loss": 0.25})
    assert logged(folder) == [(1, 0.5), (3, 0.25)]
    assert len(folder.metrics_path.read_text().splitlines()) == 2


def test_nothing_to_drop_changes_nothing(folder, tracker):
    assert tracker.truncate(0) == 0
    assert not folder.metrics_path.exists()
    tracker.log(1, {"loss": 0.5})
    before = folder.metrics_path.stat()
    assert tracker.truncate(1) == 0
    assert folder.metrics_path.stat().st_ino == before.st_ino


def test_two_processes_cannot_write_one_run(folder, tracker):
    with pytest.raises(StorageError, match="is being written by another process"):
        FileTracker(folder)


def test_a_full_disk_is_one_sentence_and_closing_is_quiet(folder):
    folder.metrics_path.symlink_to("/dev/full")
    tracker = FileTracker(folder)
    for _ in range(2):
        with pytest.raises(
            StorageError, match=r"metrics\.jsonl could not be written \(No space left on device\): see that"
        ):
            tracker.log(1, {"loss": 0.5})
    tracker.close()


def test_a_row_that_did_not_fit_leaves_those_before_it_and_after_it(folder, tracker):
    tracker.log(1, {"loss": 0.5})
    with full_disk(room=folder.metrics_path.stat().st_size + 10), pytest.raises(StorageError):
        tracker.log(2, {"loss": 0.5})
    assert logged(folder) == [(1, 0.5)]
    tracker.log(2, {"loss": 0.25})
    assert logged(folder) == [(1, 0.5), (2, 0.25)]


def test_a_page_of_samples(folder, tracker):
    messages = (Message("user", "1 + 2 ="), Message("assistant", "3"))
    tracker.transcripts(20, [Transcript("4f2a", messages, 1.0, {"exact": 1.0})])
    assert "1 + 2 =" in (folder.transcripts / "step-000020.md").read_text()
