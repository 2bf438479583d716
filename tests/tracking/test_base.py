"""What every tracker does."""

import io
import math

import pytest
from rich.console import Console

from fettle.tracking import ConsoleTracker, FileTracker, Transcript, tee
from fettle.types import Message

PAGE = Transcript("a task", (Message("user", "1 + 2 ="), Message("assistant", "3")), 1.0, {"exact": 1.0}, "expected: 3")


def quiet() -> Console:
    return Console(file=io.StringIO())


TRACKERS = {
    "console": lambda folder: ConsoleTracker(quiet()),
    "console, live": lambda folder: ConsoleTracker(Console(file=io.StringIO(), force_terminal=True, color_system=None)),
    "files": FileTracker,
    "tee": lambda folder: tee([FileTracker(folder), ConsoleTracker(quiet())]),
    "tee of none": lambda folder: tee([]),
}


@pytest.mark.parametrize("name", TRACKERS)
def test_a_tracker_takes_rows_and_pages_and_closes_twice(name, folder):
    tracker = TRACKERS[name](folder)
    tracker.log(0, {"heldout/reward": 0.25})
    tracker.log(1, {"reward/mean": 0.5, "policy/kl": math.nan, "speed/tokens_per_second": math.inf})
    tracker.log(1, {})
    tracker.transcripts(1, [PAGE])
    tracker.transcripts(1, [])
    assert [tracker.close() for _ in range(2)] == [None, None]


def test_a_tee_hands_everything_to_each_in_order():
    class Heard:
        def __init__(self, name):
            self.name = name

        def log(self, step, row):
            heard.append((self.name, step, row))

        def transcripts(self, step, pages):
            heard.append((self.name, step, pages))

        def close(self):
            heard.append((self.name, "closed"))

    heard = []
    tracker = tee([Heard("a"), Heard("b")])
    tracker.log(3, {"loss": 1.0})
    tracker.transcripts(3, [PAGE])
    tracker.close()
    assert heard == [
        ("a", 3, {"loss": 1.0}),
        ("b", 3, {"loss": 1.0}),
        ("a", 3, [PAGE]),
        ("b", 3, [PAGE]),
        ("a", "closed"),
        ("b", "closed"),
    ]


def test_a_tee_closes_the_others_when_one_cannot():
    class Faulty:
        def log(self, step, row): ...

        def transcripts(self, step, pages): ...

        def close(self):
            raise OSError("the disk is gone")

    closed = []

    class Closed(Faulty):
        def close(self):
            closed.append(self)

    with pytest.raises(OSError, match="the disk is gone"):
        tee([Faulty(), Closed()]).close()
    assert len(closed) == 1
