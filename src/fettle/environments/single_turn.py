"""One question, one reply, one reward."""

from collections.abc import Awaitable, Callable

from fettle.environments.base import Observation, StepResult
from fettle.environments.scoring import ScoringThread
from fettle.errors import EnvironmentFault
from fettle.rewards import RewardFunction, scored
from fettle.types import Message, Task

Paid = Callable[[Message, Task], Awaitable[StepResult]]
"""What a reply to a task comes to, which ends the episode; what cannot be paid raises an EnvironmentFault."""


class SingleTurn:
    """Shows a task's prompt, and pays for the reply."""

    repeatable = True

    def __init__(self, paid: Paid) -> None:
        self._paid = paid
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
        """What the reply comes to; the episode is then over.

        Raises:
            EnvironmentFault: it cannot be paid; or there is no episode to step.
        """
        if self._task is None or self._over:
            raise EnvironmentFault("there is no episode to step: reset a new environment with a task, and step it once")
        self._over = True
        return await self._paid(action, self._task)

    async def close(self) -> None:
        """Nothing is held."""
        self._over = True


def paying(name: str, reward: RewardFunction, thread: ScoringThread | None = None) -> Paid:
    """Pay what ``reward`` gives, which is called ``name`` in components and in faults; without a ``thread``, from here.

    What is returned raises:
        EnvironmentFault: the reward raised, or is no finite number.
    """
    score = scored if thread is None else thread.scored

    async def paid(action: Message, task: Task) -> StepResult:
        components = await score(name, reward, action.content, task)
        return StepResult((), sum(components.values()), terminated=True, truncated=False, components=components)

    return paid
