"""Scoring a sampler on held-out tasks, with an interval."""

import asyncio
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fettle.chat import Template
from fettle.config import SamplingParams
from fettle.engine import Sampler
from fettle.environments import Suite
from fettle.errors import EnvironmentFault
from fettle.randomness import key
from fettle.rollouts import episode
from fettle.types import Failed, Task, Trajectory

Z = 1.959963984540054  # two-sided 95 %


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """Held-out scores: mean reward, its 95 % interval, and the episodes behind it."""

    reward: float
    low: float
    high: float
    by_suite: Mapping[str, float]
    trajectories: tuple[Trajectory, ...]
    failures: tuple[Failed, ...]

    @property
    def row(self) -> dict[str, float]:
        """As metrics."""
        tokens = [trajectory.num_sampled for trajectory in self.trajectories]
        return {
            "heldout/reward": self.reward,
            **({"heldout/reward_low": self.low, "heldout/reward_high": self.high} if math.isfinite(self.low) else {}),
            "heldout/tasks": float(len(self.trajectories)),
            "heldout/failed": float(len(self.failures)),
            "heldout/tokens_mean": statistics.fmean(tokens),
            **(
                {f"heldout/reward/{name}": score for name, score in self.by_suite.items()}
                if len(self.by_suite) > 1
                else {}
            ),
        }


async def evaluate(
    suites: Sequence[Suite], *, tasks: int, sampler: Sampler, template: Template, params: SamplingParams, seed: int
) -> Evaluation:
    """One completion for each of ``tasks`` held-out tasks, shared among the suites.

    A task's draws are keyed by the task, so two evaluations differ by their weights alone.

    Raises:
        EnvironmentFault: every episode failed.
    """

    async def played(suite: Suite, label: str, task: Task) -> Trajectory | Failed:
        drawing = params.model_copy(update={"seed": key(seed, "heldout", task.id)})
        return await episode(task, suite.environment(), sampler=sampler, template=template, params=drawing, group=label)

    labels = _labels(suites)
    outcomes = await asyncio.gather(
        *(
            played(suite, label, task)
            for (suite, share), label in zip(_shares(suites, tasks), labels, strict=True)
            for task in suite.heldout_tasks()[:share]
        )
    )
    trajectories = tuple(outcome for outcome in outcomes if isinstance(outcome, Trajectory))
    failures = tuple(outcome for outcome in outcomes if isinstance(outcome, Failed))
    if not trajectories:
        raise EnvironmentFault(
            f"every one of {len(failures)} held-out episodes failed; the first: {failures[0].reason}"
        )
    rewards = [trajectory.reward for trajectory in trajectories]
    low, high = interval(rewards)
    by_suite = {
        label: statistics.fmean(of_suite)
        for label in labels
        if (of_suite := [t.reward for t in trajectories if t.group == label])
    }
    return Evaluation(statistics.fmean(rewards), low, high, by_suite, trajectories, failures)


def interval(rewards: Sequence[float]) -> tuple[float, float]:
    """A 95 % interval of the mean.

    Rewards within [0, 1] get Wilson's score interval (1927), which stays honest when all are equal; a variable in
    [0, 1] varies at most as much as a coin of the same mean, so it holds for partial credit too. Others get the
    normal interval.
    """
    n, mean = len(rewards), statistics.fmean(rewards)
    if all(0 <= reward <= 1 for reward in rewards):
        centre = (mean + Z * Z / (2 * n)) / (1 + Z * Z / n)
        half = Z / (1 + Z * Z / n) * math.sqrt(mean * (1 - mean) / n + Z * Z / (4 * n * n))
        return max(0.0, centre - half), min(1.0, centre + half)
    half = Z * statistics.stdev(rewards) / math.sqrt(n) if n > 1 else math.inf
    return mean - half, mean + half


def _labels(suites: Sequence[Suite]) -> list[str]:
    """The suites' names; those that share one are numbered."""
    names = [suite.name for suite in suites]
    return [name if names.count(name) == 1 else f"{name}-{names[:at].count(name) + 1}" for at, name in enumerate(names)]


def _shares(suites: Sequence[Suite], tasks: int) -> list[tuple[Suite, int]]:
    base, extra = divmod(tasks, len(suites))
    return [(suite, base + (index < extra)) for index, suite in enumerate(suites)]
