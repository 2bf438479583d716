"""Where a run's numbers and samples go."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol

from fettle.types import Message


@dataclass(frozen=True, slots=True)
class Transcript:
    """One episode, for people to read; ``note`` is whatever else they should know (the expected answer, ...)."""

    title: str
    messages: tuple[Message, ...]
    reward: float
    components: Mapping[str, float]
    note: str = ""
    ending: str = ""
    """The limit that cut it short."""
    player: str = ""
    """Whose side of a game it is."""
    group: str = ""
    """Those that are compared with each other share one."""


class Tracker(Protocol):
    """Something that takes rows of metrics and pages of samples."""

    def log(self, step: int, row: Mapping[str, float]) -> None:
        """One row; names are ``area/name``."""
        ...

    def transcripts(self, step: int, pages: Sequence[Transcript]) -> None:
        """Samples drawn after ``step`` steps."""
        ...

    def close(self) -> None:
        """Nothing more will come."""
        ...


def tee(trackers: Sequence[Tracker]) -> Tracker:
    """One tracker that hands everything on to several, in order; all are closed, even if one of them cannot be."""
    return _Tee(tuple(trackers))


@dataclass(frozen=True, slots=True)
class _Tee:
    trackers: tuple[Tracker, ...]

    def log(self, step: int, row: Mapping[str, float]) -> None:
        for tracker in self.trackers:
            tracker.log(step, row)

    def transcripts(self, step: int, pages: Sequence[Transcript]) -> None:
        for tracker in self.trackers:
            tracker.transcripts(step, pages)

    def close(self) -> None:
        with ExitStack() as closing:
            for tracker in reversed(self.trackers):
                closing.callback(tracker.close)
