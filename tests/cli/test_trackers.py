"""Trackers of a recipe: they get the rows of the file, and what becomes of them is nothing to the run."""

import math
import shutil
import socket

import pytest

from fettle.tracking import read_metrics
from tests.cli.conftest import Done, furnished, typed

CLOCKS = ("time", "speed", "engine")


def told(rows):
    """Without what differs from run to run."""
    return [{name: value for name, value in row.items() if name.partition("/")[0] not in CLOCKS} for row in rows]


@pytest.fixture(scope="module")
def tracked(tmp_path_factory) -> Done:
    """A run with a collector that takes calls and never answers, and with TensorBoard."""
    desk = furnished(tmp_path_factory.mktemp("tracked"))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        collector = f"http://127.0.0.1:{silent.getsockname()[1]}"
        trackers = f"trackers=[{{type: otlp, endpoint: '{collector}'}}, {{type: tensorboard}}]"
        ended = typed("train", "tiny.yaml", trackers, into=desk)
    assert ended.code == 0, ended.err
    [folder] = (desk / "runs").iterdir()
    return Done(desk, folder, ended)


def test_one_that_never_answers_changes_nothing_of_a_run(tracked, run):
    assert told(read_metrics(tracked.folder / "metrics.jsonl")) == told(read_metrics(run.folder / "metrics.jsonl"))
    assert (tracked.folder / "report.md").is_file()


def test_another_beside_it_has_the_rows_of_the_file(tracked):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = reader.EventAccumulator(str(tracked.folder / "tensorboard" / "fettle" / tracked.folder.name)).Reload()
    rows = read_metrics(tracked.folder / "metrics.jsonl")
    names = {name for row in rows for name in row} - {"step", "time"}
    assert set(events.Tags()["scalars"]) == names
    for name in names:
        there = [(int(row["step"]), row[name]) for row in rows if name in row]
        seen = [(each.step, each.value) for each in events.Scalars(name)]
        assert [step for step, _ in seen] == [step for step, _ in there]
        for (_, ours), (_, theirs) in zip(there, seen, strict=True):
            assert theirs == pytest.approx(ours, rel=1e-6) or (math.isnan(ours) and math.isnan(theirs))


@pytest.fixture
def away():
    """A tracker that cannot be opened: its address is another's."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield f"[{{type: prometheus, address: '127.0.0.1:{taken.getsockname()[1]}'}}]"


def test_one_that_cannot_be_opened_is_told_before_anything_is_run(fettle, desk, away):
    ended = fettle("train", "tiny.yaml", f"trackers={away}")
    assert (ended.code, "prometheus cannot be opened at" in ended.complaint) == (1, True)
    assert list((desk / "runs").iterdir()) == []


def test_a_later_stage_goes_on_without_one_that_is_away(fettle, desk, away, caplog):
    ended = fettle("train", "pipeline.yaml", f"stages.1.trackers={away}", "stages.1.steps=1", "stages.0.steps=1")
    assert ended.code == 0, ended.err
    assert "prometheus cannot be opened at" in caplog.text
    assert "; grpo goes on without it" in caplog.text
    [folder] = (desk / "runs").iterdir()
    assert read_metrics(folder / "grpo" / "metrics.jsonl")[-1]["step"] == 1


def test_a_resumed_run_goes_on_without_one_that_is_away(fettle, desk, away, caplog):
    folder = desk / "runs" / "cut-short"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(
        (desk / "tiny.yaml").read_text().replace("steps: 8", "steps: 1") + f"trackers: {away}\n"
    )
    for path in desk.glob("[qb]*"):
        shutil.copy(path, folder)
    ended = fettle("train", "--resume", folder)
    assert ended.code == 0, ended.err
    assert "; cut-short goes on without it" in caplog.text
    assert (folder / "report.md").is_file()
