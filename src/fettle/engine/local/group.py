"""Ranks: processes that hold the same policies, each of which computes a share of a call's data.

After every operation all of them hold the same bits. So any of them can be asked, saved or copied for all.
"""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from torch import Tensor

from fettle.engine.local.tree import Unit, computed, forest
from fettle.errors import FettleError
from fettle.types import Ints

Said = TypeVar("Said")


class Group(Protocol):
    """A process among its ranks. What a method does, all ranks do at once."""

    rank: int
    size: int
    parts: bool
    """Whether frozen models are parted among the ranks, and must be run by all of them equally often."""

    def told(self, own: object) -> list[object]:
        """What every rank says, in the order of ranks."""
        ...

    def add_up(self, values: Tensor) -> None:
        """Put the sum over ranks in the place of each one's values, the same bits everywhere."""
        ...


class Alone:
    """Satisfies ``Group``: a process by itself."""

    rank = 0
    size = 1
    parts = False

    def told(self, own: object) -> list[object]:
        """Its own word."""
        return [own]

    def add_up(self, values: Tensor) -> None:
        """The sum of one."""


ALONE = Alone()


def writers(group: Group) -> Group:
    """Those who write a policy down: all ranks where its layers are parted, and else whoever is asked."""
    return group if group.parts else ALONE


def agreed(group: Group, work: Callable[[], Said]) -> list[Said]:
    """What ``work`` comes to on each rank; where one of them fails, all raise what the first of those failed at."""
    if group.size == 1:
        return [work()]
    outcome: object
    try:
        outcome = work()
    except FettleError as error:
        outcome = type(error)(error.message)  # alone: its traceback would hold on to the memory of what failed
    found = group.told(outcome)
    for each in found:
        if isinstance(each, FettleError):
            raise each
    return found  # type: ignore[return-value]


def share(
    sequences: Sequence[Ints], group: Group, *, together: Sequence[Sequence[int]] | None, packed: bool
) -> Sequence[Sequence[int]] | None:
    """What this rank computes of a call, in units that are never parted; None where that is all, each by itself.

    Every rank shares out alike: what is most work first, to whoever has least. What begins alike stays on one rank,
    unless that is more than its fair part.
    """
    if group.size == 1:
        return together
    units: list[Unit] = [(i,) for i in range(len(sequences))] if together is None else [tuple(u) for u in together]
    shares: list[list[Unit]] = [[] for _ in range(group.size)]
    loads = [0] * group.size
    parts = _parts(units, sequences, group.size, packed=packed)
    for size, part in sorted(parts, key=lambda each: (-each[0], each[1])):
        least = loads.index(min(loads))
        shares[least] += part
        loads[least] += size
    return shares[group.rank]


def _parts(
    units: Sequence[Unit], sequences: Sequence[Ints], ranks: int, *, packed: bool
) -> list[tuple[int, tuple[Unit, ...]]]:
    """What is shared out: how many tokens are to be run, and for which units."""
    lengths = [len(sequence) for sequence in sequences]
    alone: list[tuple[int, tuple[Unit, ...]]] = [(sum(lengths[i] for i in unit), (unit,)) for unit in units]
    if not packed:
        return alone
    trees = [(computed(tree, lengths), tree.units) for tree in forest(sequences, together=units)]
    fair = sum(size for size, _ in trees) / ranks
    large = {unit for size, own in trees if size > fair for unit in own}
    return [tree for tree in trees if tree[0] <= fair] + [each for each in alone if each[1][0] in large]
