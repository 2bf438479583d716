"""Rewards of the tagged answer alone."""

from typing import cast

from fettle.rewards.base import Paid, PlainReward, RewardFunction, is_awaited
from fettle.rewards.tags import tagged_answer
from fettle.types import Task


def in_tags(reward: RewardFunction) -> RewardFunction:
    """``reward`` of the tagged answer; a reply without one earns 0."""
    if is_awaited(reward):
        awaited = reward

        async def awaited_of_tagged_answer(reply: str, task: Task) -> Paid:
            answer = tagged_answer(reply)
            return 0.0 if answer is None else await awaited(answer, task)

        return awaited_of_tagged_answer
    plain = cast(PlainReward, reward)

    def of_tagged_answer(reply: str, task: Task) -> Paid:
        answer = tagged_answer(reply)
        return 0.0 if answer is None else plain(answer, task)

    return of_tagged_answer
