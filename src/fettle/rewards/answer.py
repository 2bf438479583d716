"""Answers: what stands between the answer tags of a reply."""

from typing import cast

from fettle.rewards.base import Paid, PlainReward, RewardFunction, is_awaited
from fettle.types import Task

OPEN, CLOSE = "<answer>", "</answer>"


def tagged_answer(reply: str) -> str | None:
    """The text of the one ``<answer>...</answer>`` in a reply, stripped; None where there is not exactly one.

    Strict on purpose: a reply that lists several answers, or leaves a tag open, has not answered.

    >>> tagged_answer("3 and 4 make <answer> 7 </answer>")
    '7'
    """
    if reply.count(OPEN) != 1 or reply.count(CLOSE) != 1:
        return None
    before = reply.partition(CLOSE)[0]
    return before.partition(OPEN)[2].strip() if OPEN in before else None


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
