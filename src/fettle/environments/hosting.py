"""What a process does in which episodes are played for another: it makes their environments, and is told of each turn.

What goes wrong is an answer, too, since errors of anybody's do not all survive the way between processes.
"""

import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import fettle
from fettle.config import EnvironmentConfig
from fettle.environments.base import Environment, Game, GameSuite, Repeatable, Suite
from fettle.environments.table import suite
from fettle.errors import FettleError
from fettle.types import Task

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Fault:
    """Why there is no answer."""

    code: str
    """Of an error of this package; empty where somebody else's was raised."""
    message: str


@dataclass(frozen=True, slots=True)
class Ready:
    """A process that can play."""

    pid: int
    version: str


@dataclass(frozen=True, slots=True)
class Begun:
    """An episode's beginning."""

    first: Any
    """What its ``reset`` returned."""
    repeatable: bool


class Host:
    """Plays episodes, each under a number that it is told; used from one event loop."""

    def __init__(self, worlds: Sequence[EnvironmentConfig], folder: str) -> None:
        """Paths in ``worlds`` are relative to ``folder``, where that is there."""
        if Path(folder).is_dir():
            os.chdir(folder)
        self._suites: Sequence[Suite | GameSuite] = ()
        self._fault: Fault | None = None
        self._episodes: dict[int, Environment | Game] = {}
        try:
            self._suites = [suite(world) for world in worlds]
        except FettleError as error:
            self._fault = Fault(error.code, error.message)

    async def ready(self) -> Ready | Fault:
        """Once everything is made."""
        return self._fault or Ready(os.getpid(), fettle.__version__)

    async def reset(self, episode: int, world: int, task: Task) -> Begun | Fault:
        """Begin an episode of the suite with that number."""
        if self._fault is not None:
            return self._fault
        chosen = self._suites[world]
        played = chosen.game() if isinstance(chosen, GameSuite) else chosen.environment()
        self._episodes[episode] = played
        repeatable = isinstance(played, Repeatable) and played.repeatable
        first = await _answered(lambda: played.reset(task))
        return first if isinstance(first, Fault) else Begun(first, repeatable)

    async def step(self, episode: int, action: Any) -> Any | Fault:
        """What the environment, or the game, makes of it."""
        played: Any = self._episodes[episode]
        return await _answered(lambda: played.step(action))

    async def close(self, episode: int) -> Fault | None:
        """Give everything back that an episode held; one that never began held nothing."""
        played = self._episodes.pop(episode, None)
        return None if played is None else await _answered(played.close)


async def _answered(call: Callable[[], Awaitable[Answer]]) -> Answer | Fault:
    try:
        return await call()
    except FettleError as error:
        return Fault(error.code, error.message)
    except Exception as error:  # noqa: BLE001  an environment may be anybody's, and whatever it raises is told
        return Fault("", f"the environment raised {type(error).__name__}: {error}")
