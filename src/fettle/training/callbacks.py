"""Callbacks: code of one's own that a loop tells what happens, and that may end the run."""

from collections.abc import Mapping
from typing import Protocol


class Callback(Protocol):
    """Told of every step and evaluation, in order; whatever returns True ends the run after that step.

    A run that was ended so has its checkpoint, and stays ended when it is resumed. What a callback remembers is its
    own: a resumed run tells it only of what comes after the checkpoint.
    """

    def after_step(self, step: int, row: Mapping[str, float]) -> bool:
        """``step`` steps are done, and ``row`` holds the metrics of the last one."""
        ...

    def after_evaluation(self, step: int, score: float, row: Mapping[str, float]) -> bool:
        """The weights after ``step`` steps earned ``score`` on what is held out, and ``row`` says more."""
        ...
