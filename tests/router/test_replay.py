"""What a policy would have earned, from what another one logged: held to what it does earn."""

import json
from dataclasses import replace

import numpy as np
import pytest

from fettle.config.router import RouterRewardWeights, TasksSimulator
from fettle.errors import DataError
from fettle.router.modes import MODES
from fettle.router.replay import Log, effective_sample_size, estimates, likeliest, read_log, within_reach
from fettle.router.simulators import reward, simulator_of

LINE = {"observation": [0.5, 0.1], "mode": "consult", "propensity": 0.25, "reward": 0.4}


def softmax(scores):
    odds = np.exp(scores - scores.max(-1, keepdims=True))
    return odds / odds.sum(-1, keepdims=True)


def logging_policy(observations):
    """Prefers larger modes for harder tasks, and tries all."""
    levels = np.arange(len(MODES)) / 4
    return 0.1 + 0.5 * softmax(-6 * (levels - observations[:, :1]) ** 2)


def new_policy(observations):
    """Looks at the stakes, too."""
    levels = np.arange(len(MODES)) / 4
    return softmax(-8 * (levels - observations[:, :2].mean(-1, keepdims=True)) ** 2)


@pytest.fixture(scope="module")
def played():
    """A log of independent decisions, and the exact mean reward of a policy."""
    simulator, weights, rng = simulator_of(TasksSimulator()), RouterRewardWeights(), np.random.default_rng(0)
    state = simulator.start(20_000, rng)
    observations = simulator.observations(state)
    behind = logging_policy(observations)
    modes = (rng.random((len(behind), 1)) > behind.cumsum(-1)).sum(-1).clip(max=4)
    _, terms = simulator.step(state, modes, rng)
    log = Log(observations, modes, behind[np.arange(len(modes)), modes], reward(terms, weights), ())
    everyone = simulator.start(400_000, np.random.default_rng(1))
    expected = reward(simulator.expected(everyone), weights)
    seen = simulator.observations(everyone)
    return log, lambda policy: float((policy(seen) * expected).sum(-1).mean())


@pytest.mark.parametrize("estimator", ["ips", "self_normalized", "doubly_robust"])
def test_an_estimate_matches_on_policy_truth_within_its_interval(played, estimator):
    log, truth_of = played
    truth = truth_of(new_policy)
    found = estimates(log, new_policy(log.observations))[estimator]
    assert found.low < truth < found.high
    assert found.high - found.low < 0.1
    assert abs(log.rewards.mean() - truth) > 0.05  # the log's own mean is something else


def test_the_doubly_robust_estimate_is_the_tightest(played):
    log, _ = played
    found = estimates(log, new_policy(log.observations))
    assert found["doubly_robust"].high - found["doubly_robust"].low < found["ips"].high - found["ips"].low


def test_a_router_takes_the_likeliest_of_the_modes_that_it_may(played):
    """Held to the truth of a router that draws nothing, where each request allowed some modes only."""
    log, _ = played
    rng = np.random.default_rng(2)
    allowed = (rng.random((len(log.modes), len(MODES))) < 0.7).astype(float)
    allowed[np.arange(len(log.modes)), log.modes] = 1
    limited = replace(log, allowed=allowed)
    wanted = new_policy(log.observations)
    taken = likeliest(within_reach(limited, wanted))
    assert ((taken == 0) | (taken == 1)).all()
    np.testing.assert_array_equal(taken.argmax(-1), np.where(allowed > 0, wanted, -1).argmax(-1))


@pytest.mark.parametrize("estimator", ["ips", "self_normalized", "doubly_robust"])
def test_an_estimate_of_a_router_that_draws_nothing_matches_its_truth(played, estimator):
    log, truth_of = played
    found = estimates(log, likeliest(new_policy(log.observations)))[estimator]
    assert found.low < truth_of(lambda seen: likeliest(new_policy(seen))) < found.high


def test_a_log_without_what_the_policy_would_take_says_nothing(played):
    log, _ = played
    never = np.eye(len(MODES))[(log.modes + 1) % len(MODES)]
    with pytest.raises(DataError, match="no logged decision is one that the policy would take"):
        estimates(log, never)


def test_a_character_that_separates_lines_elsewhere_separates_none_here(tmp_path):
    (tmp_path / "log.jsonl").write_text(json.dumps({**LINE, "note": "\u2028"}, ensure_ascii=False) + "\n{}\n")
    log = read_log(tmp_path / "log.jsonl", features=2)
    assert (len(log.rewards), [number for number, _ in log.malformed]) == (1, [2])


def test_of_the_policy_that_logged_everything_counts_the_same(played):
    log, _ = played
    assert estimates(log, logging_policy(log.observations))["ips"].mean == pytest.approx(log.rewards.mean())
    assert effective_sample_size(log, logging_policy(log.observations)) == pytest.approx(len(log.rewards))
    assert effective_sample_size(log, new_policy(log.observations)) < 0.9 * len(log.rewards)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"observation": [0.5]}, "observation is not 2 numbers from -1e+06 to 1e+06"),
        ({"observation": [0.5, 1e39]}, "observation is not 2 numbers"),
        ({"observation": [0.5, 10**400]}, "observation is not 2 numbers"),
        ({"reward": -1e7}, "reward is not a number from"),
        ({"reward": float("nan")}, "reward is not a number from"),
        ({"mode": ["solo"]}, "mode is none of solo"),
        ({"allowed": ["consult", "bogus"]}, "allowed has 'bogus', which is none of solo"),
        ({"allowed": ["consult", 3]}, "allowed has 3, which is none of solo"),
        ({"allowed": "consult"}, "allowed is not a list"),
        ({"allowed": ["solo"]}, "mode is not among those allowed"),
        ({"propensity": 1e-300}, "propensity is not 1e-06 or more"),
        ({"observation": [0.5, "x"]}, "observation is not 2 numbers"),
        ({"mode": "alone"}, "mode is none of solo"),
        ({"propensity": 0}, "propensity is not 1e-06 or more"),
        ({"propensity": 2}, "propensity is not 1e-06 or more"),
        ({"reward": None}, "reward is not a number from"),
    ],
)
def test_a_line_that_is_no_decision_is_counted_by_its_number(tmp_path, change, why):
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join([json.dumps(LINE), json.dumps({**LINE, **change}), "{", "[" * 100_000, json.dumps(LINE)]))
    log = read_log(path, features=2)
    assert len(log.rewards) == 2
    assert [number for number, _ in log.malformed] == [2, 3, 4]
    assert why in log.malformed[0][1]


@pytest.mark.parametrize(("text", "sentence"), [("", "holds no decision: each"), ("[]\n", "line 1: not an object")])
def test_a_file_without_decisions_is_one_sentence(tmp_path, text, sentence):
    (tmp_path / "log.jsonl").write_text(text)
    with pytest.raises(DataError, match=sentence):
        read_log(tmp_path / "log.jsonl", features=2)
