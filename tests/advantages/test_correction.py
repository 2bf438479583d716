"""A sampler that is not quite the trainer: weights that put it right, and how far the two are apart."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fettle.advantages import mismatch, mismatch_weights
from fettle.errors import LossInputError

LOGITS = np.array([[0.5, -0.2, 0.1], [1.0, 0.0, -1.0], [0.3, 0.3, -0.9], [-0.4, 0.8, 0.0]])
"""Of a policy over three symbols: the first row for the first token, and one for each symbol that it may be."""
PERTURBED = LOGITS + np.array([[0.6, 0.0, -0.3], [-0.5, 0.4, 0.0], [0.0, -0.7, 0.2], [0.3, 0.0, 0.5]])
REWARDS = np.array([[1.0, 0.0, 0.5], [0.0, 2.0, 0.0], [-1.0, 0.0, 1.0]])
BOTH = np.array([0, 1, 1], np.float32)


def mask(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def logprobs(logits: np.ndarray) -> np.ndarray:
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def of_sequence(logits: np.ndarray, first: int, second: int) -> np.ndarray:
    """After a prompt of one token."""
    table = logprobs(logits)
    return np.array([0.0, table[0, first], table[1 + first, second]])


def policy_gradient(sampler: np.ndarray, **correction) -> np.ndarray:
    """The exact expectation of REINFORCE under ``sampler``, by every sequence of two tokens that it may draw."""
    total = np.zeros_like(LOGITS)
    for first, second in itertools.product(range(3), repeat=2):
        policy, drawn = of_sequence(LOGITS, first, second), of_sequence(sampler, first, second)
        weights = mismatch_weights(policy, drawn, BOTH, **correction) if correction else BOTH
        score = np.zeros_like(LOGITS)
        for row, symbol, weight in ((0, first, weights[1]), (1 + first, second, weights[2])):
            score[row] += weight * (np.eye(3)[symbol] - np.exp(logprobs(LOGITS)[row]))
        total += math.exp(drawn.sum()) * REWARDS[first, second] * score
    return total


def test_weights_restore_the_gradient_that_a_perturbed_sampler_spoils():
    true = policy_gradient(LOGITS)
    spoilt = policy_gradient(PERTURBED)
    restored = policy_gradient(PERTURBED, kind="truncate", cap=math.inf, level="sequence")
    assert np.abs(spoilt - true).max() > 0.05
    np.testing.assert_allclose(restored, true, atol=1e-6)


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_cut_weights_come_nearer_and_leave_some_bias(level):
    true = policy_gradient(LOGITS)
    spoilt, restored = policy_gradient(PERTURBED), policy_gradient(PERTURBED, kind="truncate", level=level)
    assert 1e-3 < np.linalg.norm(restored - true) < np.linalg.norm(spoilt - true)


def test_the_weight_of_a_token_is_the_ratio_of_its_probabilities():
    policy, sampling = np.log([1, 0.6, 0.3, 0.9]), np.log([1, 0.5, 0.6, 0.3])
    found = mismatch_weights(policy, sampling, mask(0, 1, 1, 1), kind="truncate", cap=math.inf)
    np.testing.assert_allclose(found, [0, 1.2, 0.5, 3], rtol=1e-6)
    assert found.dtype == np.float32


def test_truncation_cuts_above_and_masking_drops_on_both_sides():
    policy, sampling = np.log([1, 0.6, 0.2, 0.9]), np.log([1, 0.5, 0.6, 0.3])
    both = {"loss_mask": mask(0, 1, 1, 1), "cap": 2.0}
    truncated = mismatch_weights(policy, sampling, kind="truncate", **both)
    np.testing.assert_allclose(truncated, [0, 1.2, 1 / 3, 2], rtol=1e-6)
    np.testing.assert_allclose(mismatch_weights(policy, sampling, kind="mask", **both), [0, 1.2, 0, 0], rtol=1e-6)


@pytest.mark.parametrize(("ratio", "weight"), [(1.999, 1.999), (2.001, 0), (0.501, 0.501), (0.499, 0)])
def test_the_thresholds_of_masking(ratio, weight):
    found = mismatch_weights(np.log([1, ratio]), np.zeros(2), mask(0, 1), kind="mask", cap=2.0)
    assert found[1] == pytest.approx(weight)


def test_a_sequence_has_one_weight_the_product_over_its_trained_tokens():
    policy, sampling = np.log([0.9, 0.6, 0.1, 0.9]), np.log([0.2, 0.5, 0.9, 0.6])
    found = mismatch_weights(policy, sampling, mask(0, 1, 0, 1), kind="truncate", level="sequence")
    np.testing.assert_allclose(found, [0, 1.8, 0, 1.8], rtol=1e-6)


def test_a_whole_sequence_is_dropped_where_its_weight_is_beyond_the_cap():
    policy, sampling = np.log([0.9, 0.6, 0.9]), np.log([0.9, 0.4, 0.6])
    assert mismatch_weights(policy, sampling, mask(0, 1, 1), kind="mask", level="sequence").tolist() == [0, 0, 0]


@given(st.lists(st.floats(-1000, 0), min_size=1, max_size=6), st.sampled_from(["truncate", "mask"]))
def test_weights_stay_within_the_cap_however_far_the_two_are_apart(sampling, kind):
    drawn = np.array([0.0, *sampling])
    for level in ("token", "sequence"):
        weights = mismatch_weights(np.zeros_like(drawn), drawn, np.ones_like(drawn), kind=kind, cap=2.0, level=level)
        assert ((weights >= 0) & (weights <= 2)).all()


def test_where_the_two_agree_nothing_is_corrected():
    same = mask(0, -1, -2)
    assert mismatch_weights(same, same, mask(0, 1, 1), kind="mask").tolist() == [0, 1, 1]
    assert mismatch([same], [same], [mask(0, 1, 1)]) == {
        "policy/mismatch": 0,
        "policy/mismatch_max": 0,
        "policy/mismatch_effective_sample_size": 1,
    }


def test_how_far_the_two_are_apart_by_hand():
    """Weights 1, 2 and 1/2: a mean of 7/6, and a mean square of 21/12."""
    policy, sampling = [np.log([1, 0.5, 0.8]), np.log([1, 0.1])], [np.log([9, 0.5, 0.4]), np.log([9, 0.2])]
    found = mismatch(policy, sampling, [mask(0, 1, 1), mask(0, 1)])
    assert found["policy/mismatch"] == pytest.approx(2 * math.log(2) / 3)
    assert found["policy/mismatch_max"] == pytest.approx(math.log(2))
    assert found["policy/mismatch_effective_sample_size"] == pytest.approx((7 / 6) ** 2 / (21 / 12))


def test_without_trained_tokens_there_is_nothing_to_measure():
    assert mismatch([], [], []) == {}
    assert mismatch([mask(0, 0)], [mask(0, 0)], [mask(0, 0)]) == {}


def test_a_log_probability_that_is_no_number_is_refused():
    with pytest.raises(LossInputError, match="sampling log-probability 1 of 2 is -inf"):
        mismatch_weights(mask(0, -1), mask(0, -math.inf), mask(0, 1), kind="truncate")
