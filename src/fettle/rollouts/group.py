"""A group: several episodes of one task, whose rewards are compared with each other."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fettle.chat import Template
from fettle.config import USUAL_LIMITS, Limits, SamplingParams
from fettle.engine import Sampler
from fettle.environments import GameSuite, Suite
from fettle.randomness import key
from fettle.rollouts.episode import episode
from fettle.rollouts.match import Seat, match
from fettle.rollouts.together import together
from fettle.types import Failed, Task, Trajectory

OTHER_PROMPT = (
    "the episode began with another prompt than the first of its group, with which it is to be compared: "
    "let the environment's reset depend on the task alone"
)


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """What came of one task's episodes. Failed ones are counted, and compared with nothing."""

    task: Task
    trajectories: tuple[Trajectory, ...]
    failures: tuple[Failed, ...]

    @property
    def rewards(self) -> list[float]:
        """One for each trajectory."""
        return [trajectory.reward for trajectory in self.trajectories]


async def group(
    task: Task,
    suite: Suite,
    *,
    size: int,
    sampler: Sampler,
    template: Template,
    params: SamplingParams,
    name: str,
    limits: Limits = USUAL_LIMITS,
) -> Group:
    """Play ``task`` ``size`` times at once. Each episode has an environment and a seed of its own.

    One that began with another prompt than the first has failed, for nothing can be compared with it.
    """
    episodes = (
        episode(
            task,
            suite.environment(),
            sampler=sampler,
            template=template,
            params=params.model_copy(update={"seed": key(params.seed, "member", member)}),
            limits=limits,
            group=name,
        )
        for member in range(size)
    )
    outcomes = _of_one_prompt(await together(episodes))
    trajectories = tuple(outcome for outcome in outcomes if isinstance(outcome, Trajectory))
    failures = tuple(outcome for outcome in outcomes if isinstance(outcome, Failed))
    return Group(task, trajectories, failures)


def _of_one_prompt(outcomes: Sequence[Trajectory | Failed]) -> list[Trajectory | Failed]:
    """The outcomes, in which an episode has failed whose prompt's hash is not that of the first."""
    played = (outcome for outcome in outcomes if isinstance(outcome, Trajectory))
    first = next((prompt_hash(each) for each in played), "")
    return [
        Failed(outcome.task, OTHER_PROMPT, outcome.group)
        if isinstance(outcome, Trajectory) and prompt_hash(outcome) != first
        else outcome
        for outcome in outcomes
    ]


def prompt_hash(trajectory: Trajectory) -> str:
    """Of the tokens that the policy saw before it first spoke."""
    seen = np.asarray(trajectory.turns[0].observation, np.int64)
    return hashlib.sha256(seen.tobytes()).hexdigest()[:16]


async def games(
    task: Task,
    suite: GameSuite,
    *,
    size: int,
    seats: Mapping[str, Seat],
    name: str,
    limits: Limits = USUAL_LIMITS,
) -> dict[str, Group]:
    """Play ``task`` ``size`` times at once. Of every player a group, for each is compared with itself alone.

    A game that failed is a failure of every player's; a player that never spoke has no trajectory of that game.
    """
    outcomes = await together(
        match(task, suite.game(), seats=_seeded(seats, member), limits=limits, group=name) for member in range(size)
    )
    failures = [outcome for outcome in outcomes if isinstance(outcome, Failed)]
    played = [outcome for outcome in outcomes if not isinstance(outcome, Failed)]
    return {
        player: Group(
            task,
            tuple(sides[player] for sides in played if player in sides),
            tuple(replace(failed, group=f"{name}/{player}") for failed in failures),
        )
        for player in suite.players
    }


def _seeded(seats: Mapping[str, Seat], member: int) -> dict[str, Seat]:
    """The seats of one of several games."""
    return {
        player: replace(seat, params=seat.params.model_copy(update={"seed": key(seat.params.seed, "member", member)}))
        for player, seat in seats.items()
    }
