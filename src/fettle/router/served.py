"""Routing episodes as an environment that a server offers: a task is a batch of episodes, a step a decision in each.

Axes: E episodes.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field

from fettle.config.base import Frozen
from fettle.config.router import LegacySimulator, RouterRewardWeights, TasksSimulator
from fettle.environments.base import Environment, Observation, StepResult
from fettle.environments.remote.offers import Offer
from fettle.router.nouns import SIGNS
from fettle.router.simulators import reward, simulator_of
from fettle.router.wire import NAME, SETTINGS, modes_in, seen_out
from fettle.router.worlds import LocalWorld
from fettle.types import Message, Task

MOST = 65_536
"""Episodes in one batch."""
HELDOUT = 16
"""Batches that no training draws: those before the first number."""


class Asked(Frozen):
    """What a client chooses; nothing of it is a path."""

    simulator: Annotated[LegacySimulator | TasksSimulator, Field(discriminator="type")] = TasksSimulator()
    """Where decisions are tried out."""
    episodes: Annotated[int, Field(ge=1, le=MOST)] = 32
    """Played side by side."""
    episode_length: Annotated[int, Field(ge=1)] = 64
    """Decisions after which they are cut short."""
    seed: Annotated[int, Field(ge=0)] = 0
    """What every draw is made from."""


def offer() -> Offer:
    """For ``EnvironmentServer.offer``."""
    return Offer(NAME, SETTINGS, lambda settings: RoutingSuite(Asked.model_validate(dict(settings))))


class RoutingSuite:
    """Satisfies ``Suite``: the task of an index is the batch of episodes of that number. All of it is simulated."""

    name = NAME

    def __init__(self, asked: Asked) -> None:
        self._asked = asked

    def training_task(self, index: int) -> Task:
        """The episodes that a run of the same seed plays as its ``index``-th."""
        return self._task(index)

    def heldout_tasks(self) -> Sequence[Task]:
        """A few that no run plays."""
        return [self._task(-1 - at) for at in range(HELDOUT)]

    def environment(self) -> Environment:
        """A new batch."""
        return RoutingEpisodes(self._asked)

    def _task(self, number: int) -> Task:
        features = list(simulator_of(self._asked.simulator).features)
        told = {**self._asked.model_dump(), "number": number, "features": features, "simulated": True}
        return Task((Message("user", json.dumps(told)),), {"number": number}, f"{NAME}/{number}")


class RoutingEpisodes:
    """Satisfies ``Environment``: E episodes of one simulator, in step. The reward is the mean, by default weights."""

    def __init__(self, asked: Asked) -> None:
        self._world = LocalWorld(simulator_of(asked.simulator), seed=asked.seed, count=asked.episodes)
        self._length = asked.episode_length
        self._decisions = 0

    async def reset(self, task: Task) -> Observation:
        """Begin the episodes of a number."""
        return Observation((Message("user", seen_out(self._world.begin(int(task.data["number"])))),))

    async def step(self, action: Message) -> StepResult:
        """Decide in each episode, as ``wire.modes_in`` reads it."""
        seen, terms = self._world.step(modes_in(action.content, count=self._world.count))
        self._decisions += 1
        weights = RouterRewardWeights()
        parts: Mapping[str, Any] = {name: SIGNS[name] * getattr(weights, name) * terms[name].mean() for name in terms}
        return StepResult(
            (Message("user", seen_out(seen, terms)),),
            float(reward(terms, weights).mean()),
            terminated=False,
            truncated=self._decisions == self._length,
            components={name: float(part) for name, part in parts.items()},
        )

    async def close(self) -> None:
        """There is nothing to give back."""
        self._world.close()
