"""Whoever watches, and whoever reads the report, is told of an alarm and what to do about it."""

import io
import types

import pytest
from rich.console import Console

from fettle.tracking import HACKING, ConsoleTracker, RunFolder, report

ROWS = [
    {"step": 0, "heldout/reward": 0.5, HACKING: 0.0},
    {"step": 20, "heldout/reward": 0.25, "heldout/learned": 3.0, HACKING: 1.0},
]


@pytest.fixture
def folder(tmp_path):
    return RunFolder.at(tmp_path / "run")


def of_run(folder: RunFolder, rows) -> str:
    folder.metrics_path.write_text("".join(f"{row}\n".replace("'", '"') for row in rows))
    outcome = types.SimpleNamespace(
        steps=20, tokens=1, seconds=1.0, first=rows[0], last=rows[-1], checkpoint="", best_checkpoint="",
        interrupted=False,
    )  # fmt: skip
    return report(folder, outcome)


def test_the_report_says_when_and_what_to_do(folder):
    text = of_run(folder, ROWS)
    assert "Warning: reward hacking after step 20: " in text
    assert "go on from the best checkpoint" in text
    assert "reward hacking" not in of_run(folder, ROWS[:1])


def test_the_console_says_it_at_once():
    out = io.StringIO()
    tracker = ConsoleTracker(Console(file=out, highlight=False))
    tracker.start(20, "tiny")
    for row in ROWS:
        tracker.log(int(row["step"]), {name: value for name, value in row.items() if name != "step"})
    said = out.getvalue()
    assert said.count("warning: reward hacking after step 20") == 1
    assert "held-out 0.250  learned 3.000" in said
