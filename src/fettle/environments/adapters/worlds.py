"""Worlds that are shown in words and acted on in words, as environments."""

from dataclasses import dataclass
from typing import Protocol

from fettle.environments.base import Observation, StepResult
from fettle.environments.generated import prompt
from fettle.errors import EnvironmentFault
from fettle.rewards import tagged_answer
from fettle.types import Message, Task

REWARD, ILLEGAL = "reward", "illegal"
"""The components: what the world paid, and what replies cost that were no action."""


class IllegalAction(Exception):  # noqa: N818  it is the policy's, and no error of ours
    """A reply that is no action, in one sentence, which the policy is told."""


@dataclass(frozen=True, slots=True)
class Moved:
    """What came of an action."""

    shown: str
    reward: float
    terminated: bool
    truncated: bool = False


class World(Protocol):
    """One episode of somebody else's environment. What it raises is its own fault, but for ``IllegalAction``."""

    async def begin(self, seed: int) -> str:
        """The first observation."""

    async def act(self, action: str) -> Moved:
        """What comes of ``action``."""

    async def close(self) -> None:
        """Give everything back; may be called more than once."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What is the same of every episode."""

    system: str | None
    instructions: str | None
    asks: str
    """The end of the first message: what a reply has to be."""
    in_tags: bool
    turns: int
    illegal_cost: float

    def prompt(self, shown: str) -> tuple[Message, ...]:
        """What is said first, of the first observation."""
        return prompt(self.system, "\n\n".join(part for part in (self.instructions, shown, self.asks) if part))

    def task(self, name: str, seed: int, shown: str) -> Task:
        """The task that begins with ``shown``."""
        return Task(self.prompt(shown), {"seed": seed}, name)


class WorldEnvironment:
    """Satisfies ``Environment``: a world, told and asked by the rules.

    A reply that is no action costs something and is told what is wrong with it; the world stays as it is.
    """

    def __init__(self, world: World, rules: Rules) -> None:
        self._world = world
        self._rules = rules
        self._task: Task | None = None
        self._turns = 0
        self._over = False

    async def reset(self, task: Task) -> Observation:
        """The beginning of ``task``.

        Raises:
            EnvironmentFault: an episode has begun already; or the world failed, or begins otherwise than it did.
        """
        if self._task is not None:
            raise EnvironmentFault(
                f"an environment plays one episode, and this one has begun task {self._task.id}: make another"
            )
        self._task = task
        messages = self._rules.prompt(await self._world.begin(task.data["seed"]))
        if messages != task.prompt:
            raise EnvironmentFault(f"{task.source} begins task {task.id} in two ways: let its seed decide all of it")
        return Observation(messages)

    async def step(self, action: Message) -> StepResult:
        """What came of the reply.

        Raises:
            EnvironmentFault: the world failed; or there is no episode to step.
        """
        if self._task is None or self._over:
            raise EnvironmentFault("there is no episode to step: reset a new environment with a task first")
        self._turns += 1
        try:
            moved = await self._world.act(self._action(action.content))
            components = {REWARD: moved.reward}
        except IllegalAction as told:
            moved = Moved(str(told), -self._rules.illegal_cost, terminated=False)
            components = {ILLEGAL: moved.reward}
        truncated = not moved.terminated and (moved.truncated or self._turns == self._rules.turns)
        self._over = moved.terminated or truncated
        messages = () if self._over else (Message("user", moved.shown),)
        return StepResult(messages, moved.reward, moved.terminated, truncated, components)

    async def close(self) -> None:
        """Give the world back."""
        self._over = True
        await self._world.close()

    def _action(self, reply: str) -> str:
        if not self._rules.in_tags:
            return reply
        answer = tagged_answer(reply)
        if answer is None:
            raise IllegalAction("Say what you do once, as <answer>...</answer>.")
        return answer
