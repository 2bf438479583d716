"""The documented dynamics of the router, draw for draw: working alone is best in every state of them.

Axes: E episodes, in the order of which each draw is made; with one episode the draws are the documented ones.
"""

import numpy as np

from fettle.router.nouns import Choices, State, Terms
from fettle.types import Floats

LOWS, HIGHS = (0.3, 0.2, 0.1, 0.1), (0.9, 0.6, 0.9, 0.7)


class Legacy:
    """Satisfies ``Simulator``. A decision changes what comes after it, so that no best mode of a state is known."""

    features: tuple[str, ...] = ("traffic_load", "latency", "collaboration_pressure", "backlog")

    def start(self, count: int, rng: np.random.Generator) -> State:
        """Independent uniform draws, feature after feature."""
        drawn = rng.uniform(LOWS, HIGHS, size=(count, len(LOWS)))
        return {**dict(zip(self.features, drawn.T, strict=True)), "begun": np.ones(count)}

    def observations(self, state: State) -> Floats:
        """The four features [E, 4]."""
        return np.stack([state[name] for name in self.features], axis=-1).astype(np.float32)

    def planning(self, state: State) -> Floats:
        """The first decision of an episode; these dynamics know no tasks."""
        return state["begun"].astype(np.float32)

    def expected(self, state: State) -> None:
        """Unknown: see the class."""

    def step(self, state: State, modes: Choices, rng: np.random.Generator) -> tuple[State, Terms]:
        """Three draws for the terms, then four for what follows."""
        c = modes / 4
        load, latency, pressure, backlog = (state[name] for name in self.features)
        n = len(c)
        served = (1.15 - 0.25 * c) * (1 - 0.4 * backlog) * (1 - 0.35 * latency)
        q = np.maximum(0, served + rng.normal(0, 0.02, n))
        u = np.clip(0.55 + 0.3 * c - 0.45 * latency + rng.normal(0, 0.05, n), 0, 1)
        terms = {
            "throughput": q,
            "reliability": u,
            "latency": latency + 0.25 * c + 0.05 * backlog + np.abs(rng.normal(0, 0.03, n)),
            "collaboration_cost": c * (0.35 + 0.4 * pressure),
            "violation": np.maximum(0, 0.3 - u),
        }
        load_after = np.clip(0.55 * load + 0.35 * pressure + 0.1 * rng.random(n), 0, 1)
        latency_after = np.clip(0.6 * latency + 0.25 * backlog + 0.2 * c + rng.normal(0, 0.02, n), 0, 1.2)
        pressure_after = np.clip(0.4 * pressure + 0.4 * rng.random(n) + 0.2 * c, 0, 1)
        # The load that has already changed: so it is documented.
        backlog_after = np.clip(0.5 * backlog + 0.3 * load_after + 0.2 * (1 - q) + 0.1 * rng.random(n), 0, 1)
        after = (load_after, latency_after, pressure_after, backlog_after)
        return {**dict(zip(self.features, after, strict=True)), "begun": np.zeros(n)}, terms
