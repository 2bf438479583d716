"""Formats of data, splits of it, and demonstrations to learn from."""

from fettle.data.conversations import Conversation, conversations
from fettle.data.episodes import Episode, episodes, reward_weights, target_weights
from fettle.data.preferences import Preference, from_comparisons, preferences
from fettle.data.ratings import Rating, ratings
from fettle.data.splits import split, split_by_prompt
from fettle.data.worked_pairs import worked_pairs
from fettle.data.worked_sums import demonstrations, solution

__all__ = [
    "Conversation",
    "Episode",
    "Preference",
    "Rating",
    "conversations",
    "demonstrations",
    "episodes",
    "from_comparisons",
    "preferences",
    "ratings",
    "reward_weights",
    "solution",
    "split",
    "split_by_prompt",
    "target_weights",
    "worked_pairs",
]
