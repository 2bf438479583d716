"""Episodes to learn from without sampling: which of their messages are targets, and how much each episode weighs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fettle.data.replies import Prompt
from fettle.errors import DataError
from fettle.rows import Row, rows
from fettle.types import Floats, Message

KEYS = ("messages", "reward", "rewards", "metadata")
MAX_ADVANTAGE_WEIGHT = 20.0
"""The cap of Peng et al., 2019 (arXiv:1910.00177), before the mean is made 1."""


@dataclass(frozen=True, slots=True)
class Episode:
    """A conversation with an environment, and what it earned."""

    messages: tuple[Message, ...]
    reward: float

    @property
    def prompt(self) -> Prompt:
        """What stands before the assistant's first message."""
        return self.messages[: _first_action(self.messages)]


def episodes(path: str, *, min_reward: float | None = None) -> list[Episode]:
    """The episodes of a file that earned at least ``min_reward``, in order.

    A row has ``messages``, and ``reward``, or ``rewards``: one for each message of the assistant, whose sum is the
    reward. The last message may be the environment's.

    Raises:
        DataError: in a row the assistant says nothing or answers nothing, the rewards are missing or do not fit, or
            something is held that nobody reads; or no episode is left.
    """
    found = [_episode(row) for row in rows(path)]
    if not found:
        raise DataError(f"{path} is empty: give one episode a line")
    enough = [episode for episode in found if min_reward is None or episode.reward >= min_reward]
    if not enough:
        best = max(episode.reward for episode in found)
        raise DataError(f"no episode of {path} earned {min_reward} or more, and the best earned {best}: lower it")
    return enough


def target_weights(messages: Sequence[Message], *, actions: float, observations: float) -> list[float]:
    """For each message, what learning to say it counts: the prompt nothing, and after it both sides what is given.

    ``actions`` alone is behaviour cloning, ``observations`` alone a world model, and both are their weighted sum.

    >>> talk = [Message("user", "Go"), Message("assistant", "left"), Message("tool", "a wall")]
    >>> target_weights(talk, actions=1.0, observations=0.5)
    [0.0, 1.0, 0.5]
    """
    first = _first_action(messages)
    after = [actions if message.role == "assistant" else observations for message in messages[first:]]
    return [0.0] * first + after


def reward_weights(
    rewards: Sequence[float], *, kind: Literal["reward", "advantage"], temperature: float = 1.0
) -> Floats:
    """What each episode of a data set weighs [N]; the mean is 1, and equal rewards weigh 1 each: plain fine-tuning.

    ``reward``: w = r / mean(r).
    ``advantage``: w ∝ min(exp((r - mean(r)) / temperature), 20) (Peng et al., 2019, arXiv:1910.00177).

    Raises:
        DataError: a reward is not finite; or, where they are weights themselves, one is negative or all are 0.
    """
    earned = np.asarray(rewards, np.float64)
    if not np.isfinite(earned).all():
        at = int(np.flatnonzero(~np.isfinite(earned))[0])
        raise DataError(f"the reward of episode {at} is {earned[at]}: every reward must be a finite number")
    if kind == "reward":
        weights = _proportional(earned)
    else:
        advantage = earned - earned.mean()
        weights = np.exp(np.minimum(advantage / temperature, np.log(MAX_ADVANTAGE_WEIGHT)))
    return np.asarray(weights / weights.mean(), np.float32)


def _proportional(earned: NDArray[np.float64]) -> NDArray[np.float64]:
    if (earned < 0).any():
        at = int(np.flatnonzero(earned < 0)[0])
        raise DataError(
            f"the reward of episode {at} is {earned[at]}, and a negative reward is no weight: weigh by advantage"
        )
    if not earned.any():
        raise DataError("every reward is 0, and so nothing weighs anything: add episodes that earned something")
    return earned


def _first_action(messages: Sequence[Message]) -> int:
    return next((place for place, message in enumerate(messages) if message.role == "assistant"), len(messages))


def _episode(row: Row) -> Episode:
    row.check_keys(KEYS)
    messages = row.messages()
    actions = sum(message.role == "assistant" for message in messages)
    if not actions:
        raise DataError(f"{row.place}: the assistant says nothing: an episode has its messages too")
    if messages[0].role == "assistant":
        raise DataError(f"{row.place}: the assistant answers nothing: put a user message before it")
    return Episode(messages, _reward(row, actions))


def _reward(row: Row, actions: int) -> float:
    if "rewards" not in row.fields:
        return row.number("reward")
    rewards = row.numbers("rewards")
    if len(rewards) != actions:
        raise DataError(
            f"{row.place}: rewards holds {len(rewards)}, and the assistant has {actions} messages: give one for each"
        )
    total = sum(rewards)
    if "reward" in row.fields and not np.isclose(row.number("reward"), total):
        raise DataError(
            f"{row.place}: reward is {row.number('reward')}, and rewards add up to {total}: make them agree"
        )
    return total
