"""An environment of :mod:`core` as a suite: each time it is reset, that is a task."""

import copy
import math

from fettle.compat.mrlm.core import BaseEnvironment, Message, opening, plain
from fettle.environments import Environment, Observation, StepResult
from fettle.errors import EnvironmentFault
from fettle.types import Message as PlainMessage
from fettle.types import Task


class ResetSuite:
    """Satisfies ``Suite``. What is asked at each index is whatever the environment asks when it is next reset."""

    def __init__(
        self, name: str, environment: BaseEnvironment, *, heldout: int, max_steps: int, system_prompt: str | None
    ) -> None:
        """``heldout`` episodes are begun at once, for evaluation; of those that ask the same, one is kept."""
        self.name = name
        self._prototype = environment
        self._max_steps = max_steps
        self._system_prompt = system_prompt
        begun = [self.training_task(index) for index in range(heldout)]
        self._heldout = tuple({task.prompt: task for task in begun}.values())

    def training_task(self, index: int) -> Task:
        """What the environment asks next. A task holds the environment as it was then."""
        name = self.name
        try:
            messages = [plain(message) for message in self._prototype.reset().messages]
            begun = copy.deepcopy(self._prototype)
        except Exception as error:  # the environment is the user's, and may fail in any way
            raise EnvironmentFault(f"{name} cannot be reset and copied: {type(error).__name__}: {error}") from error
        if not messages:
            raise EnvironmentFault(f"{name} asks nothing after reset: its observation needs a message")
        system = [] if messages[0].role == "system" else opening(self._system_prompt)
        return Task((*system, *messages), {"begun": begun}, name)

    def heldout_tasks(self) -> tuple[Task, ...]:
        """The episodes kept for evaluation."""
        return self._heldout

    def environment(self) -> Environment:
        """For one episode."""
        return _Episode(self.name, self._max_steps)


class _Episode:
    """Satisfies ``Environment``: a copy of an environment, from where the task left it."""

    def __init__(self, name: str, max_steps: int) -> None:
        self._name = name
        self._left = max_steps
        self._environment: BaseEnvironment | None = None

    async def reset(self, task: Task) -> Observation:
        self._environment = copy.deepcopy(task.data["begun"])
        return Observation(task.prompt)

    async def step(self, action: PlainMessage) -> StepResult:
        if self._environment is None:
            raise EnvironmentFault(f"{self._name} has no episode to step: reset it first")
        try:
            seen, reward = self._environment.step(Message("assistant", action.content))
            value = float(reward.value)
            components = {str(part): float(worth) for part, worth in reward.components.items()}
        except Exception as error:  # the environment is the user's, and whatever it raises is its fault, never a zero
            raise EnvironmentFault(f"{self._name} raised in step: {type(error).__name__}: {error}") from error
        if not math.isfinite(value):
            raise EnvironmentFault(f"{self._name} paid {value}: a reward must be a finite number")
        if not math.isclose(sum(components.values()), value, abs_tol=1e-6):
            components = {self._name: value}
        self._left -= 1
        truncated = not seen.done and self._left <= 0
        going_on = not seen.done and not truncated
        messages = tuple(plain(message) for message in seen.messages) if going_on else ()
        return StepResult(messages, value, terminated=seen.done, truncated=truncated, components=components)

    async def close(self) -> None:
        self._environment = None
