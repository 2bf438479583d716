"""Sequences that begin alike, as trees: what they share is run once, and their own parts go on from it.

A group's completions follow one prompt, and so do the two of a pair. What is shared is found by comparing tokens. A
causal model's state at a token depends on what stands before it alone, so sharing changes no number but by rounding.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fettle.errors import ConfigError
from fettle.types import Ints

WORTH = 8
"""Tokens: a shorter beginning is run again for each sequence, which costs less than attending to it apart."""

Unit = tuple[int, ...]
"""Sequences that are never parted: one, or the two of a pair."""


@dataclass(frozen=True, slots=True)
class Tree:
    """Sequences by index, and how many tokens they all begin with."""

    units: tuple[Unit, ...]
    shared: int

    @property
    def members(self) -> list[int]:
        """Every sequence, pairs side by side."""
        return [index for unit in self.units for index in unit]


def forest(sequences: Sequence[Ints], *, together: Sequence[Sequence[int]] | None = None) -> list[Tree]:
    """All sequences in the trees that leave the fewest tokens to run; what stands ``together`` stays in one.

    In order of their tokens, sequences that share most are neighbours, so each tree is a stretch of that order. The
    best stretches are found from left to right: ``saved[j] = max_i saved[i] + shared(i, j) (sequences(i, j) - 1)``.
    """
    units = [(index,) for index in range(len(sequences))] if together is None else [tuple(unit) for unit in together]
    order = sorted(units, key=lambda unit: (sequences[unit[0]].astype(">i4").tobytes(), unit))
    within = [_beginning(unit, sequences) for unit in order]
    count = np.cumsum([0, *(len(unit) for unit in order)])
    saved = np.zeros(len(order) + 1)
    shared: NDArray[np.int64] = np.zeros(len(order), np.int64)  # by a stretch that begins at i and ends here
    cuts: list[tuple[int, int]] = []
    for end, unit in enumerate(order, start=1):
        if end > 1:
            between = _common(sequences[order[end - 2][0]], sequences[unit[0]])
            np.minimum(shared[: end - 1], min(between, within[end - 1]), out=shared[: end - 1])
        shared[end - 1] = within[end - 1]
        gained = np.where(shared[:end] >= WORTH, shared[:end] * (count[end] - count[:end] - 1.0), -np.inf)
        gained[end - 1] = max(gained[end - 1], 0.0)
        start = int(np.argmax(saved[:end] + gained))
        saved[end] = saved[start] + gained[start]
        cuts.append((start, int(shared[start]) if gained[start] > 0 else 0))
    trees, end = [], len(order)
    while end:
        start, beginning = cuts[end - 1]
        trees.append(Tree(tuple(order[start:end]), beginning))
        end = start
    return trees


def tree_bins(trees: Sequence[Tree], sequences: Sequence[Ints], *, budget: int) -> list[list[Tree]]:
    """Trees of like length in micro-batches of at most ``budget`` computed tokens; one that is larger is split.

    Raises:
        ConfigError: one sequence or pair alone is longer than the budget.
    """
    lengths = [len(sequence) for sequence in sequences]
    parts = [part for tree in trees for part in _split(tree, sequences, lengths, budget)]
    order = sorted(parts, key=lambda tree: (max(lengths[i] for i in tree.members), tree.units))
    found: list[list[Tree]] = []
    room = 0
    for tree in order:
        size = computed(tree, lengths)
        if not found or size > room:
            found.append([])
            room = budget
        found[-1].append(tree)
        room -= size
    return found


def computed(tree: Tree, lengths: Sequence[int]) -> int:
    """How many tokens are run for a tree."""
    return tree.shared + sum(lengths[i] - tree.shared for i in tree.members)


def _split(tree: Tree, sequences: Sequence[Ints], lengths: Sequence[int], budget: int) -> list[Tree]:
    parts: list[list[Unit]] = []
    apart: list[Tree] = []
    room = 0
    for unit in tree.units:
        own = computed(Tree((unit,), tree.shared), lengths) - tree.shared
        if tree.shared + own > budget:  # the two of a pair may begin with more than all of the tree do
            apart.append(Tree((unit,), _beginning(unit, sequences)))
            if computed(apart[-1], lengths) > budget:
                raise _too_long(apart[-1], lengths, budget)
            continue
        if not parts or own > room:
            parts.append([])
            room = budget - tree.shared
        parts[-1].append(unit)
        room -= own
    alone = [len(part) == 1 and len(part[0]) == 1 for part in parts]
    return [*apart, *(Tree(tuple(part), 0 if one else tree.shared) for part, one in zip(parts, alone, strict=True))]


def _too_long(tree: Tree, lengths: Sequence[int], budget: int) -> ConfigError:
    first, *others = tree.members
    who = f"the pair of data {first} and {others[0]} has" if others else f"datum {first} has"
    return ConfigError(
        f"{who} {computed(tree, lengths)} tokens to run, and engine.train_tokens allows {budget} in a micro-batch: "
        "raise engine.train_tokens, or shorten the sequence"
    )


def _beginning(unit: Unit, sequences: Sequence[Ints]) -> int:
    """How many tokens all of a unit begin with."""
    return min(_common(sequences[unit[0]], sequences[i]) for i in unit)


def _common(a: Ints, b: Ints) -> int:
    """How many tokens both begin with."""
    length = min(len(a), len(b))
    differ = np.flatnonzero(a[:length] != b[:length])
    return int(differ[0]) if len(differ) else length
