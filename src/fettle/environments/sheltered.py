"""Suites that never train on what any suite of the recipe holds out."""

from collections.abc import Collection
from functools import partial
from typing import overload

from fettle.environments.base import GameSuite, Suite
from fettle.errors import ConfigError
from fettle.randomness import key
from fettle.types import Message, Task

Prompt = tuple[Message, ...]

ATTEMPTS = 1000


class Sheltered:
    """Satisfies ``Suite``: another suite, whose training tasks leave out the ``heldout`` prompts of all.

    A training task is the suite's own or, where some suite holds that out, one from another place, the same each time;
    asking for one raises ConfigError where nearly everything there is, is held out.
    """

    def __init__(self, suite: Suite, heldout: Collection[Prompt]) -> None:
        self.name = suite.name
        self.training_task = partial(_first_kept, suite, heldout)
        self.heldout_tasks, self.environment = suite.heldout_tasks, suite.environment


class ShelteredGames:
    """Satisfies ``GameSuite``, as :class:`Sheltered` does ``Suite``."""

    def __init__(self, suite: GameSuite, heldout: Collection[Prompt]) -> None:
        self.name, self.players = suite.name, suite.players
        self.training_task = partial(_first_kept, suite, heldout)
        self.heldout_tasks, self.game = suite.heldout_tasks, suite.game


@overload
def sheltered(suite: Suite, heldout: Collection[Prompt]) -> Suite: ...
@overload
def sheltered(suite: GameSuite, heldout: Collection[Prompt]) -> GameSuite: ...
@overload
def sheltered(suite: Suite | GameSuite, heldout: Collection[Prompt]) -> Suite | GameSuite: ...
def sheltered(suite: Suite | GameSuite, heldout: Collection[Prompt]) -> Suite | GameSuite:
    """The suite, whose training tasks leave out the ``heldout`` prompts."""
    return ShelteredGames(suite, heldout) if isinstance(suite, GameSuite) else Sheltered(suite, heldout)


def _first_kept(suite: Suite | GameSuite, heldout: Collection[Prompt], index: int) -> Task:
    for attempt in range(ATTEMPTS):
        task = suite.training_task(key("sheltered", index, attempt) if attempt else index)
        if task.prompt not in heldout:
            return task
    raise ConfigError(f"nearly all tasks of {suite.name} are held out by an environment: lower its heldout")
