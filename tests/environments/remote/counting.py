"""Environments made for these tests: a sum that goes on for several turns, and ones that misbehave."""

import asyncio

from fettle.environments import Observation, StepResult
from fettle.errors import EnvironmentFault
from fettle.types import Message, Task, ToolCall, ToolSpec

SECRET = "the-answer-is-4711"
BROKEN = 66_666
"""The index of a task that cannot be made."""


class Counting:
    """The policy says numbers; each is paid, and their sum is told. After ``turns`` it is over."""

    def __init__(self, turns: int, closed: list[str]) -> None:
        self._turns, self._closed = turns, closed
        self._sum, self._turn, self._name = 0.0, 0, ""

    async def reset(self, task: Task) -> Observation:
        self._name, self._sum = task.prompt[-1].content, float(task.data["answer"])
        return Observation(task.prompt, tools=(ToolSpec("add", "Adds.", '{"type": "object"}'),))

    async def step(self, action: Message) -> StepResult:
        if action.content == "fault":
            raise EnvironmentFault(f"reward broke on {SECRET}")
        if action.content == "raise":
            raise ValueError(SECRET)
        if action.content in ("hang", "slow"):
            await asyncio.sleep(600 if action.content == "hang" else 0.3)
        if action.content == "wrong":
            return "no result"  # type: ignore[return-value]
        if action.content.startswith("flood"):
            return flood(int(action.content.removeprefix("flood") or 2**21))
        self._turn += 1
        value = float(len(action.content)) / 3
        self._sum += value
        over = self._turn >= self._turns
        said = () if over else (Message("tool", f"{self._name}: {self._sum!r}", tool_call_id="call_1"),)
        parts = {"value": value, "bonus": 0.1}
        return StepResult(said, sum(parts.values()), over, False, components=parts, measured={"sum": self._sum})

    async def close(self) -> None:
        self._closed.append(self._name)


def flood(size: int) -> StepResult:
    return StepResult((Message("user", "x" * size),), 0.0, terminated=False, truncated=False, components={})


class CountingSuite:
    """As many tasks as are asked for."""

    def __init__(self, *, turns: int = 5, seed: int = 0, heldout: int = 10) -> None:
        self.name = "counting"
        self.closed: list[str] = []
        self._turns, self._seed = turns, seed
        self._heldout = tuple(self._task("heldout", index) for index in range(heldout))

    def training_task(self, index: int) -> Task:
        if index == BROKEN:
            raise ValueError(SECRET)
        return self._task("training", index)

    def heldout_tasks(self) -> tuple[Task, ...]:
        return self._heldout

    def environment(self) -> Counting:
        return Counting(self._turns, self.closed)

    def _task(self, split: str, index: int) -> Task:
        prompt = (Message("system", "Count."), Message("user", f"{split} {self._seed}/{index}"))
        return Task(prompt, {"answer": str(index % 7), "note": SECRET}, self.name)


CALLS = Message("assistant", "Ünïcode \x00 \N{GRINNING FACE}", (ToolCall("call_0", "add", '{"a": 1}'),))
