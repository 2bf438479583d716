"""Where a reward stands, and what length costs."""

import math

import numpy as np
import pytest

from fettle.advantages import overlong_penalty, repeated_constant, token_rewards
from fettle.errors import LossInputError


def mask(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


@pytest.mark.parametrize(
    ("length", "penalty"), [(1, 0), (80, 0), (81, -0.05), (90, -0.5), (99, -0.95), (100, -1), (120, -1)]
)
def test_the_overlong_penalty_is_a_straight_line_over_the_buffer(length, penalty):
    assert overlong_penalty(length, max_tokens=100, buffer=0.2) == pytest.approx(penalty)


def test_the_overlong_penalty_has_the_thresholds_of_its_paper():
    """arXiv:2503.14476, section 4.1: 16,384 tokens are free, and 4,096 more are the cache."""
    assert overlong_penalty(16_384, max_tokens=20_480, buffer=0.2) == 0
    assert overlong_penalty(16_384 + 2_048, max_tokens=20_480, buffer=0.2) == pytest.approx(-0.5)
    assert overlong_penalty(20_480, max_tokens=20_480, buffer=0.2) == -1


def test_a_sequences_reward_stands_on_its_last_trained_token():
    assert token_rewards(0.75, mask(0, 1, 1, 0, 1, 0)).tolist() == [0, 0, 0, 0, 0.75, 0]


def test_a_reward_needs_a_token_to_stand_on():
    with pytest.raises(LossInputError, match=r"a reward of 1\.0 has no trained token"):
        token_rewards(1.0, mask(0, 0))


def test_a_reward_that_is_no_number_is_refused():
    with pytest.raises(LossInputError, match="reward 0 of 1 is nan"):
        token_rewards(math.nan, mask(0, 1))


@pytest.mark.parametrize(
    ("rewards", "repeated"),
    [
        ([9, 1, 1, 1], True),
        ([1, 1, 1, 0], False),
        ([0, 0, 0, 1], False),
        ([0, 0, 0, 0], False),
        ([1, -1, -1, -1], True),
    ],
)
def test_one_reward_copied_to_every_trained_token_is_found(rewards, repeated):
    assert repeated_constant(rewards, mask(0, 1, 1, 1)) is repeated


def test_one_trained_token_holds_no_copy():
    assert not repeated_constant([0, 1, 1], mask(0, 0, 1))
    assert not repeated_constant([0, 1, 1], mask(0, 0, 0))


def test_rewards_and_mask_of_different_lengths_are_named_with_both():
    with pytest.raises(LossInputError, match=r"the rewards have shape \[2\] beside tokens of shape \[3\]"):
        repeated_constant([1, 1], mask(0, 1, 1))
