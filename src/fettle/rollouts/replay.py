"""Groups of earlier steps to learn from again."""

from collections.abc import Iterable, Mapping
from random import Random
from typing import Any

from fettle.randomness import key
from fettle.rollouts.group import Group
from fettle.rollouts.trajectories import Fields, group_of, group_row


class Replay:
    """The newest groups, ``capacity`` of them at most, and none older than ``max_age`` policy versions.

    A group is as old as the oldest policy that drew a token in it. What is drawn depends on the seed, the step and
    the groups that are there, and on nothing else: a buffer that was written down and read back draws the same.
    """

    def __init__(self, *, capacity: int, max_age: int | None, seed: int) -> None:
        self._capacity = capacity
        self._max_age = max_age
        self._seed = seed
        self._groups: list[Group] = []

    def __len__(self) -> int:
        return len(self._groups)

    def add(self, groups: Iterable[Group]) -> None:
        """Keep the groups, and let those that came first go where there are too many.

        A group of which no episode came to an end holds nothing to learn from, and is not kept.
        """
        self._groups = [*self._groups, *(group for group in groups if group.trajectories)][-self._capacity :]

    def sample(self, n: int, *, step: int, policy_version: int) -> list[Group]:
        """``n`` different groups, or as many as there are, once those are dropped that are too old by now."""
        if self._max_age is not None:
            oldest = policy_version - self._max_age
            self._groups = [group for group in self._groups if _version(group) >= oldest]
        return Random(key(self._seed, "replay", step)).sample(self._groups, min(n, len(self._groups)))

    def rows(self) -> list[Fields]:
        """All that is kept, in order, as JSON objects.

        Raises:
            DataError: a task holds something that is not JSON.
        """
        return [group_row(group) for group in self._groups]

    def restore(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Keep what :meth:`rows` gave, and nothing else.

        Raises:
            DataError: a row is not a group.
        """
        self._groups = []
        self.add(map(group_of, rows))


def _version(group: Group) -> int:
    return min(trajectory.policy_version for trajectory in group.trajectories)
