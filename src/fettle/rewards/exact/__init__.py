"""Answers compared exactly: read into fractions, roots, sets and ranges; nothing in them is ever evaluated."""

from fettle.rewards.exact.forms import NAMED, read
from fettle.rewards.exact.notation import compact, plain, small
from fettle.rewards.exact.same import same

__all__ = ["NAMED", "compact", "plain", "read", "same", "small"]
