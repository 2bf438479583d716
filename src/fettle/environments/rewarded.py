"""Suites whose reward is put together from parts: what they pay themselves, and rewards by name."""

from collections.abc import Mapping, Sequence

from fettle.config import RewardPart
from fettle.environments.answers import paid
from fettle.environments.base import Environment, Observation, Repeatable, StepResult, Suite
from fettle.environments.scoring import ScoringThread
from fettle.errors import EnvironmentFault
from fettle.rewards import Part, parts, weighed
from fettle.types import Message, Task


class RewardedSuite:
    """Satisfies ``Suite``: another suite's tasks, under a reward of parts.

    Raises:
        ConfigError: a part's reward is not there.
    """

    def __init__(self, suite: Suite, settings: Sequence[RewardPart]) -> None:
        self.name = suite.name
        self._suite = suite
        self._parts = parts(settings)
        self._thread = ScoringThread()

    def training_task(self, index: int) -> Task:
        """The suite's own."""
        return self._suite.training_task(index)

    def heldout_tasks(self) -> Sequence[Task]:
        """The suite's own."""
        return self._suite.heldout_tasks()

    def environment(self) -> Environment:
        """The suite's own, paid by the parts."""
        return RewardedEnvironment(self._suite.environment(), self._parts, self._thread)


class RewardedEnvironment:
    """Another environment, paid by parts.

    What it pays itself is one of them, step by step, if it is named; the others are paid for the reply that ends the
    episode, and so are biases. What its own parts were is measured.
    """

    def __init__(self, environment: Environment, parts: Sequence[Part], thread: ScoringThread) -> None:
        self._environment = environment
        self._parts = parts
        self._thread = thread
        self._task: Task | None = None
        self.repeatable = isinstance(environment, Repeatable) and environment.repeatable

    async def reset(self, task: Task) -> Observation:
        """As of the environment."""
        self._task = task
        return await self._environment.reset(task)

    async def step(self, action: Message) -> StepResult:
        """As of the environment, but for the reward.

        Raises:
            EnvironmentFault: the environment or a part failed.
        """
        result = await self._environment.step(action)
        if self._task is None:
            raise EnvironmentFault("there is no episode to step: reset a new environment with a task")
        own = paid(result)
        ends = result.terminated or result.truncated
        components = {
            part.name: weighed(await self._value(part, action, own, self._task), part.settings, ends=ends)
            for part in self._parts
            if ends or part.function is None
        }
        measured = {**result.measured, **{f"environment/{name}": value for name, value in own.items()}}
        return StepResult(
            messages=result.messages,
            reward=sum(components.values()),
            terminated=result.terminated,
            truncated=result.truncated,
            components=components,
            measured=measured,
        )

    async def close(self) -> None:
        """As of the environment."""
        await self._environment.close()

    async def _value(self, part: Part, action: Message, own: Mapping[str, float], task: Task) -> float:
        if part.function is None:
            return sum(own.values())
        return sum((await self._thread.scored(part.name, part.function, action.content, task)).values())
