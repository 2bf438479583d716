"""Answers to scores."""

from fettle.rewards.answer import in_tags, tagged_answer
from fettle.rewards.base import REWARDS, RewardFunction, breakdown, reward
from fettle.rewards.matching import exact_match, number

__all__ = ["REWARDS", "RewardFunction", "breakdown", "exact_match", "in_tags", "number", "reward", "tagged_answer"]
