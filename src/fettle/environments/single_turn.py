"""One question, one reply, one reward."""

from fettle.environments.base import Observation, StepResult
from fettle.environments.scoring import ScoringThread
from fettle.errors import EnvironmentFault
from fettle.rewards import RewardFunction, scored
from fettle.types import Message, Task


class SingleTurn:
    """Shows a task's prompt, and pays what ``reward`` gives for the reply."""

    def __init__(self, name: str, reward: RewardFunction, thread: ScoringThread | None = None) -> None:
        """``name`` is what the reward is called in components and in faults; without a ``thread`` it is called here."""
        self._name = name
        self._reward = reward
        self._thread = thread
        self._task: Task | None = None
        self._over = False

    async def reset(self, task: Task) -> Observation:
        """The prompt of ``task``."""
        if self._task is not None:
            raise EnvironmentFault(
                f"an environment plays one episode, and this one has begun task {self._task.id}: make another"
            )
        self._task = task
        return Observation(task.prompt, one_reply=True)

    async def step(self, action: Message) -> StepResult:
        """The reward of the reply; the episode is then over.

        Raises:
            EnvironmentFault: the reward raised, or is no finite number; or there is no episode to step.
        """
        if self._task is None or self._over:
            raise EnvironmentFault("there is no episode to step: reset a new environment with a task, and step it once")
        self._over = True
        score = scored if self._thread is None else self._thread.scored
        components = await score(self._name, self._reward, action.content, self._task)
        return StepResult((), sum(components.values()), terminated=True, truncated=False, components=components)

    async def close(self) -> None:
        """Nothing is held."""
        self._over = True
