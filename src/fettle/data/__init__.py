"""Formats of data, splits of it, and demonstrations to learn from."""

from fettle.data.conversations import Conversation, conversations
from fettle.data.splits import split
from fettle.data.worked_sums import demonstrations, solution

__all__ = ["Conversation", "conversations", "demonstrations", "solution", "split"]
