"""Tasks that differ in what they need, so that no mode is best for all of them, and the best for each is known.

A decision never changes what comes next: tasks arrive and traffic rises and falls by themselves. The mode with the
greatest expected reward is therefore best, whatever the discount, and that is the oracle.

Axes: E episodes, M modes.
"""

import numpy as np

from fettle.router.nouns import Choices, Doubles, State, Terms
from fettle.types import Floats

OF_A_TASK = ("difficulty", "stakes", "budget", "deadline")
OF_AN_EPISODE = ("skill", "price")

HELP = np.array([0, 0.35, 0.58, 0.78, 0.95])
"""The share of what the local agent lacks that a mode makes up for [M]."""
TIME = np.array([0.05, 0.15, 0.28, 0.42, 0.65])
"""How long a mode takes, of the longest there is [M]."""
CALLS = np.array([0, 0.15, 0.35, 0.6, 1.0])
"""What a mode asks of other agents, of the most there is [M]."""

STEEPNESS = 10.0
"""How sharply success falls where difficulty passes ability."""
CHECKS = 8
"""Checks of an answer; reliability is the share that it passes."""
STAKE = 4.0
"""What a check that fails costs at the highest stakes."""
TRAFFIC_KEPT = 0.9
"""How much of the traffic of one decision is still there at the next."""


class Tasks:
    """Satisfies ``Simulator``. In an episode the local agent's skill and the others' price stay as they are."""

    features: tuple[str, ...] = (*OF_A_TASK, *OF_AN_EPISODE, "traffic")

    def __init__(self, *, task_length: int = 4) -> None:
        self._arrival = 1 / task_length

    def start(self, count: int, rng: np.random.Generator) -> State:
        """Everything uniform in [0, 1)."""
        drawn = rng.random((len(self.features), count))
        return {**dict(zip(self.features, drawn, strict=True)), "arrived": np.ones(count)}

    def observations(self, state: State) -> Floats:
        """The features [E, 7]."""
        return np.stack([state[name] for name in self.features], axis=-1).astype(np.float32)

    def planning(self, state: State) -> Floats:
        """The first decision on a task."""
        return state["arrived"].astype(np.float32)

    def expected(self, state: State) -> Terms:
        """Of each mode [E, M]. The terms are noisy, and not what is expected of them."""
        return _expected({name: values[:, None] for name, values in state.items()}, HELP, TIME, CALLS)

    def step(self, state: State, modes: Choices, rng: np.random.Generator) -> tuple[State, Terms]:
        """What was checked, how long it took; then the next decisions, on the same tasks or on new ones."""
        n = len(modes)
        chosen = _expected(state, HELP[modes], TIME[modes], CALLS[modes])
        passed = rng.binomial(CHECKS, chosen["reliability"]) / CHECKS
        failed_more = STAKE * state["stakes"] * (chosen["reliability"] - passed)
        terms = {
            "throughput": chosen["throughput"] + rng.normal(0, 0.02, n),
            "reliability": passed,
            "latency": chosen["latency"] * (1 + rng.uniform(-0.2, 0.2, n)),
            "collaboration_cost": chosen["collaboration_cost"],
            "violation": chosen["violation"] + failed_more,
        }
        return self._following(state, rng), terms

    def _following(self, state: State, rng: np.random.Generator) -> State:
        n = len(state["traffic"])
        arrived = rng.random(n) < self._arrival
        new = dict(zip(OF_A_TASK, rng.random((len(OF_A_TASK), n)), strict=True))
        traffic = TRAFFIC_KEPT * state["traffic"] + (1 - TRAFFIC_KEPT) * rng.random(n)
        tasks = {name: np.where(arrived, new[name], state[name]) for name in OF_A_TASK}
        kept = {name: state[name] for name in OF_AN_EPISODE}
        return {**tasks, **kept, "traffic": traffic, "arrived": arrived.astype(np.float64)}


def _expected(state: State, help_: Doubles, time: Doubles, calls: Doubles) -> Terms:
    """The terms to be expected of modes that help, take and ask this much."""
    own = 0.25 + 0.55 * state["skill"]
    ability = own + (1 - own) * help_
    success = 1 / (1 + np.exp(-STEEPNESS * (ability - state["difficulty"] - 0.1)))
    cost = calls * (0.5 + state["price"])
    overspent = np.maximum(0, cost / 1.5 - (0.1 + 0.9 * state["budget"]))
    return {
        "throughput": 1.1 - 0.5 * time - 0.3 * state["traffic"],
        "reliability": success,
        "latency": time * (0.5 + state["traffic"]) * (1.6 - 1.2 * state["deadline"]),
        "collaboration_cost": cost,
        "violation": STAKE * state["stakes"] * (1 - success) + 0.5 * overspent,
    }
