"""A log of a run: what its level lets through, and what a disk that is full costs it."""

import json
import logging
import uuid

import numpy as np
import pytest

from fettle.config.router import LogFile
from fettle.errors import StorageError
from fettle.router.logs import LEVELS, Lines, logged_to
from tests.disks import full_disk


def written(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("level", LEVELS)
def test_a_level_lets_through_itself_and_what_is_graver(tmp_path, level):
    path = tmp_path / "logs" / "run.jsonl"
    with logged_to(LogFile(enabled=True, level=level, destination=str(path))) as write:
        for each in LEVELS:
            write(each, "event", number=np.float32(0.5))
    assert [line["level"] for line in written(path)] == list(LEVELS[LEVELS.index(level) :])
    assert all((line["number"], line["simulated"]) == (0.5, True) for line in written(path))


def test_a_disk_that_is_full_ends_no_run_and_is_told_once_with_what_it_cost(tmp_path, caplog):
    path = tmp_path / "run.jsonl"
    with logged_to(LogFile(enabled=True, destination=str(path))) as write:
        with full_disk(room=256):
            for number in range(20):
                write("info", "update", number=number)
        write("info", "update", number=20)
    lines = path.read_text().splitlines()
    whole = [json.loads(line)["number"] for line in lines if line.endswith("}")]
    assert whole[-1] == 20, "there is room again"
    assert len(lines) == len(whole) + 1, "one was cut short, and is a line of its own"
    told = [(each.levelno, each.getMessage()) for each in caplog.records]
    assert told == [
        (
            logging.ERROR,
            f"what happens in a run of {path} is not written down: {path} cannot be written to (File too large); more "
            "such lines are only counted",
        ),
        (logging.WARNING, f"{path} lacks {21 - len(whole)} lines"),
    ]


def test_a_place_that_cannot_be_written_to_is_told_before_a_run_begins(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(StorageError, match="change the destination"),
        logged_to(LogFile(enabled=True, destination=str(tmp_path / "file" / "run.jsonl"))),
    ):
        pass


def test_what_json_has_no_form_for_is_a_number_or_its_text(tmp_path):
    lines, name = Lines(tmp_path / "lines.jsonl"), uuid.uuid4()
    lines.add({"a": np.float32(0.25), "b": np.int64(3), "c": name, "d": {"e": [name]}})
    lines.close()
    assert written(tmp_path / "lines.jsonl") == [{"a": 0.25, "b": 3, "c": str(name), "d": {"e": [str(name)]}}]
