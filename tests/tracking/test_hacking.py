"""Whoever watches, and whoever reads the report, is told of an alarm and what to do about it."""

import io
import types

import pytest
from rich.console import Console

from fettle.tracking import COMPONENT, FLAT, HACKING, LENGTH, REPETITION, ConsoleTracker, RunFolder, report

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
    assert "held-out true 0.250  learned 3.000" in said


def rows_of(*found):
    """Evaluations after 0, 4, 8, ... steps; each either has the alarm, or the note, or neither."""
    return [
        {"step": 4 * at, "heldout/reward": 0.0, "heldout/learned": 0.1 * at, HACKING: alarm, FLAT: note}
        for at, (alarm, note) in enumerate(found)
    ]


QUIET, NOTE, ALARM = (0.0, 0.0), (0.0, 1.0), (1.0, 0.0)


def test_the_report_of_a_quiet_run_has_the_verdict_too(folder):
    text = of_run(folder, rows_of(QUIET, QUIET, QUIET))
    assert "Monitor: no alarm (evaluations: 3). Learned rewards are after scale and clip.\n" in text
    assert "Warning" not in text


def test_every_alarm_is_in_the_verdict(folder):
    text = of_run(folder, rows_of(QUIET, ALARM, ALARM))
    assert "Monitor: reward hacking after step 4, 8 (evaluations: 3)." in text
    assert "Note: " not in text


def test_a_true_reward_that_stays_where_it_was_deserves_a_word_and_no_warning(folder):
    text = of_run(folder, rows_of(QUIET, QUIET, NOTE))
    assert " Note: up to step 8 the learned reward rises and the true one stays where it was" in text
    assert "Warning" not in text
    assert "Note: " not in of_run(folder, rows_of(QUIET, NOTE, QUIET))


def test_without_a_monitor_there_is_no_verdict(folder):
    assert "Monitor" not in of_run(folder, [{"step": 0, "heldout/reward": 0.5}])


def test_the_console_has_the_word_once():
    out = io.StringIO()
    tracker = ConsoleTracker(Console(file=out, highlight=False))
    tracker.start(12, "tiny")
    for row in rows_of(QUIET, NOTE, NOTE):
        tracker.log(int(row["step"]), {name: value for name, value in row.items() if name != "step"})
    assert out.getvalue().count("note: up to step 4 the learned reward rises") == 1
    assert out.getvalue().count("note: ") == 1
    assert "warning" not in out.getvalue()


def signed(**given):
    """Evaluations after 0, 4, 8, ... steps, of which each sign is given by those that are named."""
    names = {"component": COMPONENT, "length": LENGTH, "repetition": REPETITION}
    return [
        {
            "step": 4 * at,
            "heldout/reward": 0.1 * at,
            **{names[sign]: float(at in given.get(sign, ())) for sign in names},
        }
        for at in range(4)
    ]


def test_alarms_without_a_reward_model_are_in_the_report(folder):
    text = of_run(folder, signed(component=(2, 3), repetition=(3,)))
    assert "Monitor: alarm/component after step 8, 12; alarm/repetition after step 12 (evaluations: 4).\n" in text
    assert "Warning: alarm/component after step 8: the reward rises while one of its components falls" in text
    assert "Warning: alarm/repetition after step 12: replies repeat themselves" in text
    assert "alarm/length" not in text


def test_a_quiet_run_without_a_reward_model_has_its_verdict(folder):
    text = of_run(folder, signed())
    assert "Monitor: no alarm (evaluations: 4).\n" in text
    assert "Warning" not in text


def test_the_console_says_each_sign_once():
    out = io.StringIO()
    tracker = ConsoleTracker(Console(file=out, highlight=False))
    tracker.start(12, "tiny")
    for row in signed(length=(1, 2, 3)):
        tracker.log(int(row["step"]), {name: value for name, value in row.items() if name != "step"})
    assert out.getvalue().count("warning: alarm/length after step 4: replies are several times as long") == 1
    assert out.getvalue().count("warning: ") == 1
