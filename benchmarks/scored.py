"""Rewards that both sides pay, by the same code."""

from fettle.types import Task


def even_share(reply: str, task: Task | None = None) -> float:
    """The share of characters with an even code: something to earn for whatever random weights write."""
    return sum(ord(character) % 2 == 0 for character in reply) / max(1, len(reply))
