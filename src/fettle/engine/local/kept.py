"""Conversations that go on: what was computed for a finished row is kept for prompts that begin with its tokens."""

from collections import Counter, OrderedDict, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fettle.engine.local.forward import Voice

KEPT_BYTES = 1 << 29
"""Most memory for conversations that may go on; beyond it the least recently used go."""


@dataclass(slots=True, eq=False)
class Stretch:
    """Keys and values of tokens that follow those of another stretch; conversations that part share what is common."""

    before: "Stretch | None"
    keys: Tensor  # [layers, n, heads, size]
    values: Tensor
    holders: int = 0
    """Kept conversations that it is part of."""

    @property
    def nbytes(self) -> int:
        """Without those before it."""
        return self.keys.nbytes + self.values.nbytes

    @property
    def end(self) -> int:
        """Tokens up to its end."""
        return sum(stretch.keys.shape[1] for stretch in self.line)

    @property
    def line(self) -> "list[Stretch]":
        """It and those before it, in the order of their tokens."""
        found: list[Stretch] = []
        stretch: Stretch | None = self
        while stretch is not None:
            found.append(stretch)
            stretch = stretch.before
        return found[::-1]


_Whose = tuple[Hashable, int]


class _Entry(NamedTuple):
    tokens: NDArray[np.int64]
    last: Stretch


class Kept:
    """Conversations of one model. What it holds depends on the calls made, and on nothing else."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.nbytes = 0
        self._entries: OrderedDict[tuple[_Whose, int, int], _Entry] = OrderedDict()  # by length and mark
        self._lengths: defaultdict[_Whose, Counter[int]] = defaultdict(Counter)

    def longest(self, voice: Voice, prompt: NDArray[np.int64]) -> Stretch | None:
        """Of the longest conversation that ``prompt`` begins with and goes beyond."""
        lengths = [length for length in self._lengths.get(voice.whose, ()) if length < len(prompt)]
        if lengths:
            marks = _marks(prompt)
            for length in sorted(lengths, reverse=True):
                key = (voice.whose, length, int(marks[length - 1]))
                entry = self._entries.get(key)
                if entry is not None and np.array_equal(entry.tokens, prompt[:length]):
                    self._entries.move_to_end(key)
                    return entry.last
        return None

    def add(self, voice: Voice, tokens: NDArray[np.int64], last: Stretch) -> None:
        """Keep a conversation of ``tokens``, whose keys and values end with ``last``, unless its voice has no owner."""
        if voice.owner is None:
            return
        key = (voice.whose, len(tokens), int(_marks(tokens)[-1]))
        if key in self._entries:
            self._entries.move_to_end(key)
            return
        self._entries[key] = _Entry(tokens, last)
        self._lengths[voice.whose][len(tokens)] += 1
        for stretch in last.line:
            self.nbytes += 0 if stretch.holders else stretch.nbytes
            stretch.holders += 1
        while self.nbytes > self.most_bytes:
            self._drop(next(iter(self._entries)))

    def outgrown(self, voices: Sequence[Voice]) -> None:
        """Drop what was left by versions older than all of these of the same weights."""
        for owner in {voice.owner for voice in voices}:
            oldest = min(voice.version for voice in voices if voice.owner == owner)
            for key in [key for key in self._entries if key[0][0] == owner and key[0][1] < oldest]:
                self._drop(key)

    def forget(self, owner: Hashable) -> None:
        """Drop all that is of this owner."""
        for key in [key for key in self._entries if key[0][0] == owner]:
            self._drop(key)

    def _drop(self, key: tuple[_Whose, int, int]) -> None:
        whose, length, _ = key
        self._lengths[whose] -= Counter([length])
        if not self._lengths[whose]:
            del self._lengths[whose]
        for stretch in self._entries.pop(key).last.line:
            stretch.holders -= 1
            self.nbytes -= 0 if stretch.holders else stretch.nbytes


def _marks(tokens: NDArray[np.int64]) -> NDArray[np.uint64]:
    """A number for each beginning of ``tokens`` [T], which for another sequence is hardly ever the same."""
    factors = np.random.Generator(np.random.Philox(key=0)).integers(1 << 63, size=len(tokens), dtype=np.uint64)
    return ((tokens.astype(np.uint64) + np.uint64(1)) * factors).cumsum(dtype=np.uint64)
