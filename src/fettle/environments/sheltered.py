"""Suites that never train on what any suite of the recipe holds out, and may be scored on half of it."""

from collections.abc import Callable, Collection, Hashable, Sequence
from functools import partial
from typing import TypeVar, overload

from fettle.config.parts import Half
from fettle.environments.base import GameSuite, Suite
from fettle.errors import ConfigError
from fettle.randomness import key
from fettle.types import Message, Task

Prompt = tuple[Message, ...]

ATTEMPTS = 1000

T = TypeVar("T")


class Sheltered:
    """Satisfies ``Suite``: another suite, whose training tasks leave out the ``heldout`` prompts of all.

    What it is scored on may be one half of what it holds out.

    A training task is the suite's own or, where some suite holds that out, one from another place, the same each time;
    asking for one raises ConfigError where nearly everything there is, is held out.
    """

    def __init__(self, suite: Suite, heldout: Collection[Prompt], half: Half = None) -> None:
        self.name = suite.name
        self.training_task = partial(_first_kept, suite, heldout)
        self.heldout_tasks, self.environment = _half(suite, half), suite.environment


class ShelteredGames:
    """Satisfies ``GameSuite``, as :class:`Sheltered` does ``Suite``."""

    def __init__(self, suite: GameSuite, heldout: Collection[Prompt], half: Half = None) -> None:
        self.name, self.players = suite.name, suite.players
        self.training_task = partial(_first_kept, suite, heldout)
        self.heldout_tasks, self.game = _half(suite, half), suite.game


@overload
def sheltered(suite: Suite, heldout: Collection[Prompt], half: Half = None) -> Suite: ...
@overload
def sheltered(suite: GameSuite, heldout: Collection[Prompt], half: Half = None) -> GameSuite: ...
@overload
def sheltered(suite: Suite | GameSuite, heldout: Collection[Prompt], half: Half = None) -> Suite | GameSuite: ...
def sheltered(suite: Suite | GameSuite, heldout: Collection[Prompt], half: Half = None) -> Suite | GameSuite:
    """The suite, whose training tasks leave out the ``heldout`` prompts, scored on ``half`` of its own, if any."""
    return ShelteredGames(suite, heldout, half) if isinstance(suite, GameSuite) else Sheltered(suite, heldout, half)


def _half(suite: Suite | GameSuite, half: Half) -> Callable[[], Sequence[Task]]:
    """What is scored of a suite, when it is asked for."""
    if half is None:
        return suite.heldout_tasks
    return lambda: halved(suite.heldout_tasks(), half, lambda task: task.prompt)


def halved(rows: Sequence[T], half: Half, asked: Callable[[T], Hashable]) -> Sequence[T]:
    """The rows that ask every other question; None: all of them.

    Raises:
        ConfigError: there is none.
    """
    if half is None:
        return rows
    begin = ("first", "second").index(half)
    kept = frozenset(list(dict.fromkeys(map(asked, rows)))[begin::2])
    if not kept:
        raise ConfigError(f"evaluation.half is {half}, and {len(rows)} is all that is held out: hold out 2 or more")
    return [row for row in rows if asked(row) in kept]


def _first_kept(suite: Suite | GameSuite, heldout: Collection[Prompt], index: int) -> Task:
    for attempt in range(ATTEMPTS):
        task = suite.training_task(key("sheltered", index, attempt) if attempt else index)
        if task.prompt not in heldout:
            return task
    raise ConfigError(f"nearly all tasks of {suite.name} are held out by an environment: lower its heldout")
