"""Where the seconds of a run's steps went, as its folder says."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from fettle.tracking import FileTracker, RunFolder, write_profile
from fettle.tracking.plots import draw_profile
from fettle.tracking.profile import profile_section


@dataclass(frozen=True)
class Operator:
    name: str
    calls: int
    seconds: float


MATRICES, COPIES = Operator("aten::mm", 10, 0.3), Operator("aten::copy_", 2000, 0.1)


def step(forward: float, wait: float) -> dict[str, float]:
    return {"time/forward": forward, "time/wait": wait, "time/step": forward + wait, "loss": 1.0}


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """Three steps, the second of which was slowed by a profiler, and an evaluation."""
    folder = RunFolder.at(tmp_path)
    tracker = FileTracker(folder)
    for number, row in enumerate([step(3.0, 1.0), step(50.0, 50.0), step(1.0, 3.0)], start=1):
        tracker.log(number, row)
    tracker.log(3, {"heldout/loss": 1.0})
    tracker.close()
    return folder


def read(folder: RunFolder) -> dict:
    return json.loads(folder.profile_path.read_text())


def test_totals_and_shares_leave_out_the_step_that_was_looked_at(folder):
    write_profile(folder, seconds=110.0, step=2, operators=[MATRICES, COPIES])
    profile = read(folder)
    assert profile["totals"] == {"forward": 4.0, "wait": 4.0}
    assert profile["shares"] == {"forward": 0.5, "wait": 0.5}
    assert profile["seconds"] == 8.0
    assert profile["outside_steps"] == 2.0
    assert profile["steps"][0] == {"step": 1, "forward": 3.0, "wait": 1.0}
    assert [row["step"] for row in profile["steps"]] == [1, 2, 3]
    assert profile["operators"][0] == {"name": "aten::mm", "calls": 10, "seconds": 0.3, "share": pytest.approx(0.75)}


def test_a_run_that_is_gone_on_with_keeps_the_operators_it_had_found(folder):
    write_profile(folder, seconds=110.0, step=2, operators=[MATRICES])
    write_profile(folder, seconds=110.0, step=2, operators=[])
    assert read(folder)["operators"][0]["name"] == "aten::mm"
    assert read(folder)["profiled_step"] == 2


def test_without_operators_every_step_counts(folder):
    write_profile(folder, seconds=110.0, step=2, operators=[])
    assert read(folder)["seconds"] == 108.0
    assert read(folder)["profiled_step"] is None


def test_the_report_has_the_parts_and_the_operators(folder):
    assert profile_section(folder) == ""
    write_profile(folder, seconds=110.0, step=2, operators=[MATRICES, COPIES])
    page = profile_section(folder)
    assert "| forward: forward passes | 4.00 | 50.0% |" in page
    assert "2.00 s besides" in page
    assert "| `aten::copy_` | 2,000 | 0.1000 | 25.0% |" in page
    assert "profile.png" not in page


def test_the_parts_are_drawn_and_linked(folder):
    draw_profile([{"step": 1, **step(3.0, 1.0)}, {"step": 2, "heldout/loss": 1.0}], folder.profile_chart_path)
    write_profile(folder, seconds=110.0, step=2, operators=[])
    assert folder.profile_chart_path.read_bytes().startswith(b"\x89PNG")
    assert "(profile.png)" in profile_section(folder)


def test_a_run_of_no_steps_has_no_picture(tmp_path):
    draw_profile([{"step": 0, "heldout/loss": 1.0}], tmp_path / "profile.png")
    assert not (tmp_path / "profile.png").exists()
