"""The protocols: an environment plays one episode, a suite holds tasks and makes the environments for them.

A game is an episode of several players, each with a conversation of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from fettle.types import Message, Task, ToolSpec


@dataclass(frozen=True, slots=True)
class Observation:
    """What the policy sees first."""

    messages: tuple[Message, ...]
    one_reply: bool = False
    """Whether the first reply ends the episode, so that nothing need be kept for a second."""
    tools: tuple[ToolSpec, ...] = ()
    """What the policy may call; what it then calls is in its message, read in the form of its own template."""


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
    measured: Mapping[str, float] = field(default_factory=dict)
    """Numbers by name that are told, and are no part of the reward; the last of each name counts."""


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


@runtime_checkable
class Repeatable(Protocol):
    """An ``Environment`` or a ``Game`` that says whether an episode of it may be played again, by another of its kind.

    It may where the same task and the same replies lead to the same, and change nothing that is left when it is closed:
    what a process was playing that died is then played again elsewhere. Otherwise such an episode has failed.
    """

    repeatable: bool


class Suite(Protocol):
    """Tasks, and the environments that play them."""

    name: str

    def training_task(self, index: int) -> Task:
        """The same task for the same index, and never one that is held out. No index is too high."""

    def heldout_tasks(self) -> Sequence[Task]:
        """The tasks kept for evaluation, no two of which ask the same."""

    def environment(self) -> Environment:
        """A new environment, for one episode."""


@dataclass(frozen=True, slots=True)
class GameStep:
    """What came of the actions of those whose turn it was."""

    heard: Mapping[str, tuple[Message, ...]]
    """For each player, what is new to it; those who hear nothing need not be named."""
    turn: tuple[str, ...]
    """Who acts next, all of them at once; nobody once it is over."""
    components: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """For each player, the named parts whose sum is its reward of this step."""
    measured: Mapping[str, float] = field(default_factory=dict)
    """Numbers by name that are told, and are no part of the reward."""
    truncated: bool = False
    """Whether a limit of the game's cut it short."""


class Game(Protocol):
    """One episode of several players. Used once, as an ``Environment`` is, and its faults are told alike."""

    async def reset(self, task: Task) -> tuple[Mapping[str, Observation], tuple[str, ...]]:
        """Begin ``task``: what each player sees first (one that acts needs a message), and who acts first."""

    async def step(self, actions: Mapping[str, Message]) -> GameStep:
        """Take what those said whose turn it was."""

    async def close(self) -> None:
        """Give everything back; may be called more than once."""


@runtime_checkable
class GameSuite(Protocol):
    """Tasks, and the games that are played of them."""

    name: str
    players: tuple[str, ...]
    """Names of the players; the first is the one whose reward is told where one number is wanted."""

    def training_task(self, index: int) -> Task:
        """As of a ``Suite``."""

    def heldout_tasks(self) -> Sequence[Task]:
        """As of a ``Suite``."""

    def game(self) -> Game:
        """A new game, for one episode."""
