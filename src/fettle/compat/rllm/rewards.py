"""The documented reward for what is soon done: a share, so that it is worth less than what the tests say."""

import math

from fettle.errors import DataError
from fettle.issues.edits import edits_of
from fettle.types import Task

SOON = 2000
"""Characters of a reply that is worth a third."""
COMPLETION_TIME = f"{__name__}:completion_time"


def completion_time(reply: str, task: Task) -> float:
    """1 for a reply with an edit that is over at once, and less the longer it goes on:  exp(-characters / 2000)."""
    try:
        edits_of(reply)
    except DataError:
        return 0.0
    return math.exp(-len(reply) / SOON)
