"""Measures against closed forms and by enumeration."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fettle.errors import ConfigError, DataError, LossInputError
from fettle.training.measures import distinct_n, exact_entropy, exact_kl, mean_length, pass_at_k, perplexity

LOGITS = arrays(np.float64, (3, 5), elements=st.floats(-20, 20))


@pytest.mark.parametrize("samples", [1, 4, 6])
def test_pass_at_k_is_the_share_of_choices_with_a_right_one_in_them(samples):
    for correct, k in itertools.product(range(samples + 1), range(1, samples + 1)):
        choices = list(itertools.combinations([True] * correct + [False] * (samples - correct), k))
        assert pass_at_k(correct, samples, k) == pytest.approx(sum(map(any, choices)) / len(choices))


def test_pass_at_k_is_unbiased():
    """Over ten draws that are each right with a chance of 0.3, its mean is 1 - 0.7^4."""
    chances = [math.comb(10, c) * 0.3**c * 0.7 ** (10 - c) for c in range(11)]
    mean = sum(chance * pass_at_k(c, 10, 4) for c, chance in enumerate(chances))
    assert mean == pytest.approx(1 - 0.7**4)


def test_pass_at_k_of_very_many_samples_is_still_a_number():
    assert pass_at_k(1, 5000, 2500) == pytest.approx(0.5)


@pytest.mark.parametrize("k", [0, 5])
def test_pass_at_k_needs_k_completions(k):
    with pytest.raises(ConfigError, match=f"pass@{k} cannot be told from 4 completions"):
        pass_at_k(1, 4, k)


def test_there_are_no_more_right_completions_than_completions():
    with pytest.raises(DataError, match="5 of 4 completions cannot be right"):
        pass_at_k(5, 4, 2)


def test_distinct_n_by_hand():
    sequences = [[1, 2, 1, 2], [1, 2], [7]]
    assert distinct_n(sequences, 1) == 3 / 7
    assert distinct_n(sequences, 2) == 2 / 4
    assert distinct_n(sequences, 5) is None


def test_perplexity_of_a_uniform_guess_is_the_number_of_choices():
    assert perplexity(math.log(32)) == pytest.approx(32)
    assert perplexity(0.0) == 1
    assert perplexity(1e4) == math.inf


def test_mean_length():
    assert mean_length([[1, 2, 3], [], [4]]) == pytest.approx(4 / 3)
    assert mean_length([]) is None


@given(LOGITS)
def test_a_model_does_not_diverge_from_itself(logits):
    assert exact_kl(logits, logits).tolist() == [0, 0, 0]


@given(LOGITS, st.floats(-50, 50))
def test_what_is_added_to_every_logit_changes_nothing(logits, shift):
    np.testing.assert_allclose(exact_kl(logits, logits + shift), 0, atol=1e-12)
    np.testing.assert_allclose(exact_entropy(logits + shift), exact_entropy(logits), atol=1e-11)


@given(LOGITS, st.floats(-5, 5))
def test_the_divergence_from_a_model_with_one_logit_shifted_has_a_closed_form(logits, shift):
    """q_0 ∝ p_0 e^δ, so KL(p‖q) = log(1 + p_0 (e^δ - 1)) - p_0 δ."""
    shifted = logits + np.array([shift, 0, 0, 0, 0])
    p = (np.exp(logits) / np.exp(logits).sum(-1, keepdims=True))[:, 0]
    np.testing.assert_allclose(exact_kl(logits, shifted), np.log1p(p * np.expm1(shift)) - p * shift, atol=1e-9)


def test_the_divergence_by_hand():
    p, q = np.log([0.5, 0.3, 0.2]), np.log([0.2, 0.3, 0.5])
    assert exact_kl(p, q) == pytest.approx(0.3 * math.log(0.5 / 0.2))


@given(LOGITS, LOGITS)
def test_a_divergence_is_never_negative(p, q):
    assert (exact_kl(p, q) >= -1e-12).all()


def test_what_cannot_be_said_costs_nothing_and_what_the_other_never_says_everything():
    half, one = np.array([0.0, 0.0, -np.inf]), np.array([0.0, -np.inf, -np.inf])
    assert exact_kl(one, half) == pytest.approx(math.log(2))
    assert exact_kl(half, one) == math.inf
    assert exact_kl(half, half) == 0
    assert exact_entropy(half) == pytest.approx(math.log(2))


def test_logits_of_different_shapes_are_refused():
    with pytest.raises(LossInputError, match=r"logits of shapes \[2, 3\] and \[2, 4\] cannot be compared"):
        exact_kl(np.zeros((2, 3)), np.zeros((2, 4)))


def test_entropy_is_greatest_for_a_uniform_guess():
    assert exact_entropy(np.zeros(8)) == pytest.approx(math.log(8))
    assert exact_entropy(np.array([100.0, 0.0])) == pytest.approx(0, abs=1e-9)
