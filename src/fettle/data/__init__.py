"""Formats of data and of batches, splits of it, and demonstrations to learn from."""

from fettle.data.apart import held_apart
from fettle.data.columnar import FORMATS, groups, pairs, sequences
from fettle.data.conversations import Conversation, ToolConversation, conversations, tools_of
from fettle.data.episodes import Episode, episodes, reward_weights, target_weights
from fettle.data.padded import columns, group_columns, pair_columns
from fettle.data.preferences import Preference, from_comparisons, preferences
from fettle.data.ratings import Rating, ratings
from fettle.data.splits import split, split_by_prompt
from fettle.data.worked_calls import worked_calls
from fettle.data.worked_code import programs
from fettle.data.worked_mathematics import worked_mathematics
from fettle.data.worked_pairs import worked_pairs
from fettle.data.worked_sums import demonstrations, solution

__all__ = [
    "FORMATS",
    "Conversation",
    "Episode",
    "Preference",
    "Rating",
    "ToolConversation",
    "columns",
    "conversations",
    "demonstrations",
    "episodes",
    "from_comparisons",
    "group_columns",
    "groups",
    "held_apart",
    "pair_columns",
    "pairs",
    "preferences",
    "programs",
    "ratings",
    "reward_weights",
    "sequences",
    "solution",
    "split",
    "split_by_prompt",
    "target_weights",
    "tools_of",
    "worked_calls",
    "worked_mathematics",
    "worked_pairs",
]
