"""Suites that never train on what any suite of the recipe holds out."""

from collections.abc import Callable, Collection, Sequence
from typing import overload

from fettle.environments.base import Environment, Game, GameSuite, Suite
from fettle.errors import ConfigError
from fettle.randomness import key
from fettle.types import Message, Task

Prompt = tuple[Message, ...]

ATTEMPTS = 1000


class Sheltered:
    """Satisfies ``Suite``: another suite, whose training tasks leave out the ``heldout`` prompts of all."""

    def __init__(self, suite: Suite, heldout: Collection[Prompt]) -> None:
        self.name = suite.name
        self._suite = suite
        self._heldout = heldout

    def training_task(self, index: int) -> Task:
        """The suite's own task, or, where some suite holds that out, one from another place, the same each time.

        Raises:
            ConfigError: nearly everything there is, is held out.
        """
        return _first_kept(self._suite.training_task, index, self._heldout, self.name)

    def heldout_tasks(self) -> Sequence[Task]:
        """The suite's own."""
        return self._suite.heldout_tasks()

    def environment(self) -> Environment:
        """The suite's own."""
        return self._suite.environment()


class ShelteredGames:
    """Satisfies ``GameSuite``, as :class:`Sheltered` does ``Suite``."""

    def __init__(self, suite: GameSuite, heldout: Collection[Prompt]) -> None:
        self.name = suite.name
        self.players = suite.players
        self._suite = suite
        self._heldout = heldout

    def training_task(self, index: int) -> Task:
        """As of :class:`Sheltered`.

        Raises:
            ConfigError: nearly everything there is, is held out.
        """
        return _first_kept(self._suite.training_task, index, self._heldout, self.name)

    def heldout_tasks(self) -> Sequence[Task]:
        """The suite's own."""
        return self._suite.heldout_tasks()

    def game(self) -> Game:
        """The suite's own."""
        return self._suite.game()


@overload
def sheltered(suite: Suite, heldout: Collection[Prompt]) -> Suite: ...
@overload
def sheltered(suite: GameSuite, heldout: Collection[Prompt]) -> GameSuite: ...
@overload
def sheltered(suite: Suite | GameSuite, heldout: Collection[Prompt]) -> Suite | GameSuite: ...
def sheltered(suite: Suite | GameSuite, heldout: Collection[Prompt]) -> Suite | GameSuite:
    """The suite, whose training tasks leave out the ``heldout`` prompts."""
    return ShelteredGames(suite, heldout) if isinstance(suite, GameSuite) else Sheltered(suite, heldout)


def _first_kept(task_of: Callable[[int], Task], index: int, heldout: Collection[Prompt], name: str) -> Task:
    for attempt in range(ATTEMPTS):
        task = task_of(key("sheltered", index, attempt) if attempt else index)
        if task.prompt not in heldout:
            return task
    raise ConfigError(f"nearly all tasks of {name} are held out by an environment: lower its heldout")
