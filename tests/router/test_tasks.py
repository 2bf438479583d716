"""Tasks: no mode is best for all of them, and what is best for each is known."""

import numpy as np
import pytest

from fettle.config.router import RouterRewardWeights, TasksSimulator
from fettle.router.modes import MODES
from fettle.router.simulators import reward, simulator_of

WEIGHTS = RouterRewardWeights()


def played(simulator, choose, *, count=512, length=40, seed=0):
    """The mean reward of a way to choose."""
    rng = np.random.default_rng(seed)
    state, total = simulator.start(count, rng), 0.0
    for _ in range(length):
        state, terms = simulator.step(state, choose(state), rng)
        total += reward(terms, WEIGHTS).mean() / length
    return total


def test_every_mode_is_best_for_a_good_share_of_tasks_and_none_for_most():
    simulator = simulator_of(TasksSimulator())
    best = reward(simulator.expected(simulator.start(20_000, np.random.default_rng(0))), WEIGHTS).argmax(-1)
    shares = np.bincount(best, minlength=len(MODES)) / len(best)
    assert shares.min() > 0.1
    assert shares.max() < 0.4


def test_the_oracle_is_far_above_every_constant():
    simulator = simulator_of(TasksSimulator())
    constants = [played(simulator, lambda state, at=at: np.full(512, at)) for at in range(len(MODES))]
    oracle = played(simulator, lambda state: reward(simulator.expected(state), WEIGHTS).argmax(-1))
    assert oracle > max(constants) + 0.2


def test_what_is_expected_is_the_mean_of_what_happens():
    simulator = simulator_of(TasksSimulator())
    one = simulator.start(1, np.random.default_rng(3))
    many = {name: np.repeat(values, 40_000) for name, values in one.items()}
    for at in range(len(MODES)):
        _, terms = simulator.step(many, np.full(40_000, at), np.random.default_rng(at))
        for name, values in simulator.expected(one).items():
            assert terms[name].mean() == pytest.approx(np.broadcast_to(values, (1, 5))[0, at], abs=0.01), name


def test_what_comes_next_does_not_hang_on_the_decision():
    """Episodes that decide alike and unlike go through the same states on average: none is steered."""
    simulator = simulator_of(TasksSimulator())

    def states_after(mode):
        rng = np.random.default_rng(0)
        state = simulator.start(20_000, rng)
        for _ in range(8):
            state, _ = simulator.step(state, np.full(20_000, mode), rng)
        return simulator.observations(state).mean(0)

    np.testing.assert_allclose(states_after(0), states_after(4), atol=0.01)


def test_a_task_takes_as_many_decisions_as_it_should():
    simulator = simulator_of(TasksSimulator(task_length=8))
    rng = np.random.default_rng(0)
    state, arrivals = simulator.start(512, rng), 0.0
    for _ in range(50):
        before = state
        state, _ = simulator.step(state, np.zeros(512, int), rng)
        new = simulator.planning(state) > 0
        arrivals += new.mean() / 50
        np.testing.assert_array_equal(before["stakes"] != state["stakes"], new)
        np.testing.assert_array_equal(before["skill"], state["skill"])
    assert arrivals == pytest.approx(1 / 8, abs=0.01)


@pytest.mark.parametrize(("term", "sign"), [("throughput", 1), ("reliability", 1), ("latency", -1), ("violation", -1)])
def test_a_term_counts_with_its_sign_and_its_weight(term, sign):
    ones = dict.fromkeys(("throughput", "reliability", "latency", "collaboration_cost", "violation"), np.ones(1))
    weights = RouterRewardWeights(**{**dict.fromkeys(ones, 0.0), term: 2.0})
    assert reward(ones, weights)[0] == 2 * sign
