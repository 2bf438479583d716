"""Why an episode broke is in the run's folder."""

import pytest

from fettle.errors import StorageError
from fettle.tracking import FileTracker, read_failures, record_failures
from fettle.types import Failed, Message, Task

TASK = Task((Message("user", "1 + 1 ="),), {"answer": "2"}, "sums")


def test_each_has_a_line_with_its_reason(folder):
    record_failures(folder, 0, "evaluation", [])
    assert not folder.failures_path.exists()
    record_failures(folder, 2, "training", [Failed(TASK, "KeyError: 'nope'"), Failed(TASK, "timed out")])
    record_failures(folder, 4, "evaluation", [Failed(TASK, "timed out")])
    assert read_failures(folder)[0] == {
        "step": 2, "phase": "training", "environment": "sums", "task": TASK.id, "reason": "KeyError: 'nope'",
    }  # fmt: skip
    assert [(f["step"], f["phase"]) for f in read_failures(folder)][1:] == [(2, "training"), (4, "evaluation")]


def test_those_of_steps_that_will_be_done_again_are_dropped(folder):
    for step in (1, 2, 3):
        record_failures(folder, step, "training", [Failed(TASK, "broke")])
    tracker = FileTracker(folder)
    tracker.truncate(2)
    tracker.close()
    assert [failure["step"] for failure in read_failures(folder)] == [1, 2]


def test_a_torn_line_is_passed_over_and_taken_out(folder):
    folder.failures_path.write_text('{"step": 1, "rea')
    assert read_failures(folder) == []
    record_failures(folder, 2, "training", [Failed(TASK, "broke")])
    assert [failure["step"] for failure in read_failures(folder)] == [2]


def test_what_cannot_be_written_is_an_error(folder):
    folder.failures_path.mkdir()
    with pytest.raises(StorageError, match=r"failures\.jsonl could not be written"):
        record_failures(folder, 1, "training", [Failed(TASK, "broke")])
