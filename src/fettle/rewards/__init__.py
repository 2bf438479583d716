"""Answers to scores."""

from fettle.rewards.answer import in_tags
from fettle.rewards.base import REWARDS, Paid, RewardFunction, breakdown, finite_number, is_awaited, reward, scored
from fettle.rewards.calculator import RewardCalculator
from fettle.rewards.composed import Part, parts, weighed
from fettle.rewards.explained import explained
from fettle.rewards.matching import exact_match, number
from fettle.rewards.readable import readable
from fettle.rewards.tags import tagged_answer

__all__ = [
    "REWARDS",
    "Paid",
    "Part",
    "RewardCalculator",
    "RewardFunction",
    "breakdown",
    "exact_match",
    "explained",
    "finite_number",
    "in_tags",
    "is_awaited",
    "number",
    "parts",
    "readable",
    "reward",
    "scored",
    "tagged_answer",
    "weighed",
]
