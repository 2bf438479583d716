"""Tasks by number, with a reward made up by a function of the reply."""

from collections.abc import Sequence

from fettle.environments import Environment, Observation, StepResult
from fettle.types import Message, Task


class Game:
    """Satisfies ``Suite``."""

    def __init__(self, reward, name: str = "game") -> None:
        self.name, self._reward = name, reward

    def training_task(self, index: int) -> Task:
        return Task((Message("user", f"{self.name} {index}"),), {"answer": str(index)}, self.name)

    def heldout_tasks(self) -> Sequence[Task]:
        return [self.training_task(-1 - index) for index in range(8)]

    def environment(self) -> Environment:
        return Once(self._reward)


class Once:
    def __init__(self, reward) -> None:
        self._reward = reward

    async def reset(self, task: Task) -> Observation:
        self._task = task
        return Observation(task.prompt)

    async def step(self, action: Message) -> StepResult:
        paid = self._reward(action.content, self._task)
        components = paid if isinstance(paid, dict) else {"game": paid}
        return StepResult((), sum(components.values()), True, False, components)

    async def close(self) -> None:
        pass


def length(reply: str, task: Task) -> float:
    return len(reply) / 10
