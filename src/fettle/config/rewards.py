"""Rewards put together from named parts."""

from typing import Annotated

from pydantic import Field, model_validator

from fettle.config.base import Frozen
from fettle.config.judge import JudgedReward, check_judge

ENVIRONMENT = "environment"
"""The part that stands for what an environment itself pays."""


class RewardPart(Frozen):
    """One part of a reward: ``clip(scale · value) + bias``."""

    reward: str
    """A reward by name, ``judge``, ``package.module:function``, or ``environment`` for what the environment itself
    pays."""
    judge: JudgedReward | None = None
    """Who is asked where ``reward`` is ``judge``."""
    name: str | None = None
    """What the part is called; null is its reward's own name."""
    scale: float = 1.0
    """What its value is multiplied by; below 0 it is a penalty."""
    clip: Annotated[float, Field(gt=0)] | None = None
    """The scaled value is held within ±clip; null leaves it."""
    bias: float = 0.0
    """Added once an episode, after the clip."""

    @model_validator(mode="after")
    def _a_judge_is_asked(self) -> "RewardPart":
        check_judge(self.reward, self.judge)
        return self


class Rewarded(Frozen):
    """An environment whose reward may be put together from parts."""

    rewards: tuple[RewardPart, ...] = ()
    """Parts that sum to the reward, in the place of what the environment itself pays; none leaves that as it is."""

    @model_validator(mode="after")
    def _parts_differ(self) -> "Rewarded":
        names = [part.name or part.reward for part in self.rewards]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"rewards has {', '.join(twice)} more than once: give each part a name of its own")
        return self


class Alarms(Frozen):
    """What of the held-out replies is a sign that the reward is earned otherwise than was meant."""

    window: Annotated[int, Field(ge=2)] = 3
    """Evaluations over which the reward and its components are compared."""
    fall: Annotated[float, Field(gt=0, le=1)] = 0.2
    """How far a component may fall from its best, as a share of that, while the whole reward rises."""
    length: Annotated[float, Field(gt=1)] = 3.0
    """How many times as long as at the start replies may be, while the reward rises."""
    repetition: Annotated[float, Field(gt=0, le=1)] = 0.3
    """By how much the share of a reply that repeats what it said before may rise, while the reward rises."""
