"""Rewards put together: each part scaled, held within its clip and raised by its bias, under a name of its own."""

from collections.abc import Sequence
from dataclasses import dataclass

from fettle.config.rewards import ENVIRONMENT, RewardPart
from fettle.rewards.base import RewardFunction
from fettle.rewards.judge import named_reward


@dataclass(frozen=True, slots=True)
class Part:
    """One part: its settings, and the reward that it takes its value from."""

    settings: RewardPart
    function: RewardFunction | None
    """None for what the environment itself pays."""

    @property
    def name(self) -> str:
        """What its component is called."""
        return self.settings.name or self.settings.reward


def parts(settings: Sequence[RewardPart]) -> tuple[Part, ...]:
    """The parts that are set, each with its reward.

    Raises:
        ConfigError: there is no reward of that name, or its judge's key is not where it should be.
    """
    return tuple(
        Part(each, None if each.reward == ENVIRONMENT else named_reward(each.reward, each.judge)) for each in settings
    )


def weighed(value: float, part: RewardPart, *, ends: bool = True) -> float:
    """``clip(scale · value, ±clip)``, and the bias where the episode ends with it.

    >>> weighed(3.0, RewardPart(reward="number", scale=0.5, clip=1.0, bias=-0.25))
    0.75
    """
    scaled = part.scale * value
    if part.clip is not None:
        scaled = max(-part.clip, min(part.clip, scaled))
    return scaled + part.bias if ends else scaled
