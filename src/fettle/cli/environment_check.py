"""What ``fettle environments check`` does: a few episodes, and what came of each."""

import time

from fettle.config import EnvironmentConfig
from fettle.environments import GameSuite, Suite, suite
from fettle.errors import ConfigError, EnvironmentFault
from fettle.types import Message, Task

TURNS = 16
"""Turns after which an episode has been played enough."""
SHOWN = 100
"""Characters of a prompt."""


async def checked(config: EnvironmentConfig, *, reply: str, episodes: int) -> None:
    """Play tasks, print a line for each, and end with what held.

    Raises:
        ConfigError: it is a game, of several players.
        EnvironmentFault: an episode failed, or one task was begun in two ways.
    """
    made = suite(config)
    if isinstance(made, GameSuite):
        raise ConfigError(
            f"{config.type} is a game of several players, and this plays environments of one: "
            f"let a model play it, by fettle collect {config.type} --model MODEL --out FILE"
        )
    held = made.heldout_tasks()
    print(f"{made.name}: {len(held)} held-out tasks; the first: {_shown(held[0])}")
    began = time.perf_counter()
    steps = 0
    for index in range(episodes):
        task = made.training_task(index)
        turns, reward = await _played(made, task, reply)
        steps += turns
        print(f"  task {index}: {turns} turns, reward {reward:g}: {_shown(task)}")
    seconds = time.perf_counter() - began
    print(f"{episodes} episodes, {steps} steps, {1000 * seconds / steps:.1f} ms a step, none failed")


async def _played(made: Suite, task: Task, reply: str) -> tuple[int, float]:
    environment, again = made.environment(), made.environment()
    try:
        first = await environment.reset(task)
        if first != await again.reset(task):
            raise EnvironmentFault(f"{made.name} begins task {task.id} in two ways: let it depend on the task alone")
        turns, reward = 0, 0.0
        while True:
            result = await environment.step(Message("assistant", reply))
            turns, reward = turns + 1, reward + result.reward
            if result.terminated or result.truncated or turns == TURNS:
                return turns, reward
    finally:
        await environment.close()
        await again.close()


def _shown(task: Task) -> str:
    text = " ".join(task.prompt[-1].content.split())
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
