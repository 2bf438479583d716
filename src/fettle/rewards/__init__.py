"""Answers to scores."""

from fettle.rewards.answer import in_tags
from fettle.rewards.base import REWARDS, Paid, RewardFunction, breakdown, finite_number, is_awaited, reward, scored
from fettle.rewards.composed import Part, parts, weighed
from fettle.rewards.matching import exact_match, number
from fettle.rewards.tags import tagged_answer

__all__ = [
    "REWARDS",
    "Paid",
    "Part",
    "RewardFunction",
    "breakdown",
    "exact_match",
    "finite_number",
    "in_tags",
    "is_awaited",
    "number",
    "parts",
    "reward",
    "scored",
    "tagged_answer",
    "weighed",
]
