"""Suites whose tasks come from a generator: the held-out ones are drawn first, and training keeps clear of them."""

from collections.abc import Callable, Iterable, Sequence
from random import Random

from fettle.environments.base import Environment
from fettle.environments.scoring import ScoringThread
from fettle.environments.single_turn import SingleTurn, paying
from fettle.errors import ConfigError
from fettle.randomness import key
from fettle.rewards import RewardFunction
from fettle.types import Message, Task

PROBES = 1000
"""Draws before it is said that there is no further task to find."""


class GeneratedTasks:
    """Tasks, each drawn by ``draw`` from a generator of its own.

    What is held out is held out by its prompt, so that neither the same task nor the same question with another
    answer is ever trained on. Keeping seeds apart would not do: generators repeat themselves.

    Raises:
        ConfigError: there are too few different tasks to hold out and still to train.
    """

    def __init__(self, name: str, draw: Callable[[Random], Task], *, seed: int, heldout: int) -> None:
        self.name = name
        self._draw = draw
        self._seed = seed
        draws = (draw(Random(key(seed, "heldout", index))) for index in range(PROBES + 20 * heldout))
        self._heldout = distinct(draws, heldout)
        self._kept = frozenset(task.prompt for task in self._heldout)
        if len(self._heldout) < heldout:
            raise ConfigError(
                f"{name}: heldout is {heldout}, but its settings make only {len(self._heldout)} tasks: hold out fewer"
            )
        self.training_task(0)  # where every task is held out, that is said now and not after the first evaluation

    def training_task(self, index: int) -> Task:
        """The first draw of ``index`` that is not held out."""
        for attempt in range(PROBES):
            task = self._draw(Random(key(self._seed, "train", index, attempt)))
            if task.prompt not in self._kept:
                return task
        raise ConfigError(
            f"{self.name}: {PROBES} draws made nothing but held-out tasks: with these settings there are too few tasks"
            f" to hold out {len(self._kept)}"
        )

    def heldout_tasks(self) -> Sequence[Task]:
        """The tasks kept for evaluation."""
        return self._heldout


class GeneratedSuite:
    """Single-turn tasks that are generated.

    Raises:
        ConfigError: as of :class:`GeneratedTasks`.
    """

    def __init__(
        self,
        name: str,
        draw: Callable[[Random], Task],
        reward: RewardFunction,
        *,
        component: str,
        seed: int,
        heldout: int,
    ) -> None:
        """``component`` is what the reward is called."""
        self.name = name
        self._tasks = GeneratedTasks(name, draw, seed=seed, heldout=heldout)
        self._reward = reward
        self._component = component
        self._thread = ScoringThread()

    def training_task(self, index: int) -> Task:
        """The first draw of ``index`` that is not held out."""
        return self._tasks.training_task(index)

    def heldout_tasks(self) -> Sequence[Task]:
        """The tasks kept for evaluation."""
        return self._tasks.heldout_tasks()

    def environment(self) -> Environment:
        """A new single-turn environment."""
        return SingleTurn(paying(self._component, self._reward, self._thread))


def distinct(tasks: Iterable[Task], size: int) -> tuple[Task, ...]:
    """The first ``size`` tasks whose prompts differ, or as many as there are."""
    found: dict[tuple[Message, ...], Task] = {}
    for task in tasks:
        found.setdefault(task.prompt, task)
        if len(found) == size:
            break
    return tuple(found.values())


def prompt(system: str | None, question: str) -> tuple[Message, ...]:
    """A question, after the system message if there is one."""
    asked = Message("user", question)
    return (asked,) if system is None else (Message("system", system), asked)
