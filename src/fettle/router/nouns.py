"""The nouns of routing decisions.

Axes: E episodes played at once, D features of an observation, M modes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fettle.types import Floats

Doubles = NDArray[np.float64]
Choices = NDArray[np.int64]
"""Modes as actions, 0 to 4."""
State = dict[str, Doubles]
"""What episodes are in, by name, each [E]."""
Terms = dict[str, Doubles]
"""What decisions led to, by the names of ``SIGNS``, each [E]; or what every mode leads to, each [E, M]."""

SIGNS: Mapping[str, int] = MappingProxyType(
    {"throughput": 1, "reliability": 1, "latency": -1, "collaboration_cost": -1, "violation": -1}
)
"""The terms of a reward, and whether they count for a decision or against it."""
DOCUMENTED_TERMS: Mapping[str, str] = MappingProxyType(
    {
        "throughput": "avg_throughput",
        "reliability": "avg_reliability",
        "latency": "avg_latency",
        "collaboration_cost": "avg_collaboration_cost",
        "violation": "avg_violation_penalty",
    }
)
"""The means of the terms as a training history names them."""


class Simulator(Protocol):
    """Episodes of decisions. What is drawn comes from the generator that is handed over, and from nothing else."""

    features: tuple[str, ...]
    """What the numbers of an observation are."""

    def start(self, count: int, rng: np.random.Generator) -> State:
        """That many episodes at their beginning."""
        ...

    def observations(self, state: State) -> Floats:
        """What the policy sees [E, D]."""
        ...

    def planning(self, state: State) -> Floats:
        """1 for a decision that begins a task [E]."""
        ...

    def expected(self, state: State) -> Terms | None:
        """The terms to be expected of every mode [E, M]; None where what comes later hangs on the decision."""
        ...

    def step(self, state: State, modes: Choices, rng: np.random.Generator) -> tuple[State, Terms]:
        """The episodes after these decisions [E], and the terms of the decisions."""
        ...


@dataclass(frozen=True, slots=True)
class Seen:
    """What episodes that are played side by side show of themselves before a decision."""

    observations: Floats
    """[E, D]"""
    planning: Floats
    """1 for a decision that begins a task [E]."""


class World(Protocol):
    """Where episodes are played side by side: in this process, or at a server. The same draws wherever that is."""

    features: tuple[str, ...]
    """What the numbers of an observation are."""
    count: int
    """Episodes at once."""

    def begin(self, number: int) -> Seen:
        """The episodes of that number, the same whenever they are begun; those under way are given up."""
        ...

    def step(self, modes: Choices) -> tuple[Seen, Terms]:
        """What follows these decisions [E], and their terms."""
        ...

    def close(self) -> None:
        """Give everything back."""
        ...
