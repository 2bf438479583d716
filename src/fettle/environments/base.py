"""The two protocols: an environment plays one episode, a suite holds tasks and makes the environments for them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from fettle.types import Message, Task


@dataclass(frozen=True, slots=True)
class Observation:
    """What the policy sees first."""

    messages: tuple[Message, ...]
    one_reply: bool = False
    """Whether the first reply ends the episode, so that nothing need be kept for a second."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """What came of one action. ``terminated``: it is over; ``truncated``: a limit cut it short."""

    messages: tuple[Message, ...]
    """New ones only; none once it is over."""
    reward: float
    terminated: bool
    truncated: bool
    components: Mapping[str, float]
    """The named parts whose sum is the reward."""


class Environment(Protocol):
    """One episode. Used once: reset, then steps until it is over, then closed, whatever happened.

    ``reset`` and ``step`` raise EnvironmentFault where the environment or its reward fails: a fault is never a
    reward of zero.
    """

    async def reset(self, task: Task) -> Observation:
        """Begin ``task``."""

    async def step(self, action: Message) -> StepResult:
        """Take what the policy said."""

    async def close(self) -> None:
        """Give everything back; may be called more than once."""


class Suite(Protocol):
    """Tasks, and the environments that play them."""

    name: str

    def training_task(self, index: int) -> Task:
        """The same task for the same index, and never one that is held out. No index is too high."""

    def heldout_tasks(self) -> Sequence[Task]:
        """The tasks kept for evaluation, no two of which ask the same."""

    def environment(self) -> Environment:
        """A new environment, for one episode."""
