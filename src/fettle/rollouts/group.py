"""A group: several episodes of one task, whose rewards are compared with each other."""

import asyncio
from dataclasses import dataclass

from fettle.chat import Template
from fettle.config import USUAL_LIMITS, Limits, SamplingParams
from fettle.engine import Sampler
from fettle.environments import Suite
from fettle.randomness import key
from fettle.rollouts.episode import episode
from fettle.types import Failed, Task, Trajectory


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
    """Play ``task`` ``size`` times at once. Each episode has an environment and a seed of its own."""
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
    outcomes = await asyncio.gather(*episodes)
    trajectories = tuple(outcome for outcome in outcomes if isinstance(outcome, Trajectory))
    failures = tuple(outcome for outcome in outcomes if isinstance(outcome, Failed))
    return Group(task, trajectories, failures)
