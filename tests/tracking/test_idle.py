"""Somebody is told when a run has nothing to learn from."""

import io

import pytest
from rich.console import Console

from fettle.tracking import ConsoleTracker
from fettle.tracking.idle import advice, idle_beginning

IDLE = {"reward/mean": 0.0, "advantage/nonzero": 0.0}
TEACHES = {"reward/mean": 0.25, "advantage/nonzero": 0.5}


@pytest.mark.parametrize(
    ("rows", "idle"),
    [
        ([IDLE] * 3, True),
        ([IDLE] * 2, False),
        ([IDLE, IDLE, TEACHES], False),
        ([{"heldout/reward": 0.0}, IDLE, IDLE, IDLE, TEACHES], True),
        ([{"loss": 1.0}] * 3, False),
    ],
)
def test_three_steps_without_an_advantage_are_enough(rows, idle):
    assert idle_beginning(rows) == idle


def test_the_advice_says_what_was_earned():
    assert "(mean reward 0)" in advice([IDLE] * 3)


@pytest.mark.parametrize(("row", "times"), [(IDLE, 1), (TEACHES, 0)])
def test_the_console_warns_once(row, times):
    screen = io.StringIO()
    tracker = ConsoleTracker(Console(file=screen, width=400))
    tracker.start(9, "a run")
    for step in range(1, 10):
        tracker.log(step, row)
    assert screen.getvalue().count("nothing can be learned") == times
