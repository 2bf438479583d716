"""The documented dynamics, draw for draw."""

import numpy as np
import pytest

from fettle.config.router import LegacySimulator, RouterRewardWeights
from fettle.router.simulators import reward, simulator_of


def documented_step(L, l, p, b, action, rng):  # noqa: E741
    """As the documentation writes it, in its order of draws."""
    c = action / 4
    q = max(0, (1.15 - 0.25 * c) * (1 - 0.4 * b) * (1 - 0.35 * l) + rng.normal(0, 0.02))
    u = min(max(0.55 + 0.3 * c - 0.45 * l + rng.normal(0, 0.05), 0), 1)
    penalty = l + 0.25 * c + 0.05 * b + abs(rng.normal(0, 0.03))
    cost = c * (0.35 + 0.4 * p)
    violation = max(0, 0.3 - u)
    clip = lambda x, most=1.0: min(max(x, 0), most)  # noqa: E731
    L2 = clip(0.55 * L + 0.35 * p + 0.1 * rng.random())
    l2 = clip(0.6 * l + 0.25 * b + 0.2 * c + rng.normal(0, 0.02), 1.2)
    p2 = clip(0.4 * p + 0.4 * rng.random() + 0.2 * c)
    b2 = clip(0.5 * b + 0.3 * L2 + 0.2 * (1 - q) + 0.1 * rng.random())
    return (L2, l2, p2, b2), 1.0 * q + 0.5 * u - 0.75 * penalty - 0.1 * cost - 1.0 * violation


def test_an_episode_is_the_documented_one_draw_for_draw():
    simulator, weights = simulator_of(LegacySimulator()), RouterRewardWeights()
    ours, theirs = np.random.default_rng(42), np.random.default_rng(42)
    state = simulator.start(1, ours)
    expected = tuple(theirs.uniform([0.3, 0.2, 0.1, 0.1], [0.9, 0.6, 0.9, 0.7]))
    for action in [0, 1, 2, 3, 4] * 20:
        np.testing.assert_array_equal(simulator.observations(state)[0], np.float32(expected))
        state, terms = simulator.step(state, np.array([action]), ours)
        expected, earned = documented_step(*expected, action, theirs)
        assert reward(terms, weights)[0] == pytest.approx(earned, abs=1e-15)


def test_working_alone_is_best_by_far():
    simulator, weights = simulator_of(LegacySimulator()), RouterRewardWeights()

    def mean(action):
        rng = np.random.default_rng(0)
        state, total = simulator.start(256, rng), 0.0
        for _ in range(64):
            state, terms = simulator.step(state, np.full(256, action), rng)
            total += reward(terms, weights).mean() / 64
        return total

    assert [mean(action) for action in range(5)] == pytest.approx([0.911, 0.577, 0.265, -0.030, -0.308], abs=0.005)
