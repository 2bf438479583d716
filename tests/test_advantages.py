"""Credit: what an episode's reward is worth beside the others of its group, or of its batch."""

import math
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fettle.advantages import (
    ADVANTAGES,
    batch_normalized,
    credit,
    group_centered,
    group_normalized,
    leave_one_out,
    overlong_penalty,
    return_to_go,
    zero_variance,
)
from fettle.config import Advantage
from fettle.errors import LossInputError

REWARDS = st.lists(st.floats(-10, 10), min_size=1, max_size=9)


def mask(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def test_group_normalized_divides_by_the_unbiased_standard_deviation():
    third = math.sqrt(3) / 2
    np.testing.assert_allclose(group_normalized([1, 0, 0, 1]), [third, -third, -third, third])
    assert third == pytest.approx(0.8660, abs=5e-5)


def test_group_centered_takes_off_the_mean():
    np.testing.assert_allclose(group_centered([1, 0, 0, 1]), [0.5, -0.5, -0.5, 0.5])


def test_leave_one_out_takes_off_the_mean_of_the_others():
    np.testing.assert_allclose(
        leave_one_out([1.0, 0.0, 0.5, 4.0]), [1 - 4.5 / 3, 0 - 5.5 / 3, 0.5 - 5 / 3, 4 - 1.5 / 3]
    )


@given(REWARDS)
@pytest.mark.parametrize("name", ADVANTAGES)
def test_advantages_of_any_group_sum_to_nothing_and_keep_the_order_of_rewards(name, rewards):
    advantages = ADVANTAGES[name](rewards)
    assert advantages.shape == (len(rewards),)
    assert advantages.sum() == pytest.approx(0, abs=1e-6)
    if zero_variance(rewards):
        assert not advantages.any()
    else:
        order = np.argsort(rewards)
        assert (np.diff(advantages[order]) >= 0).all()


@pytest.mark.parametrize("name", ADVANTAGES)
@pytest.mark.parametrize("rewards", [[], [0.7], [0.3, 0.1 + 0.2], [0.1] * 3, [1e9 + 0.1, 1e9]])
def test_a_group_whose_rewards_are_equal_but_for_rounding_teaches_nothing(name, rewards):
    assert zero_variance(rewards)
    assert ADVANTAGES[name](rewards).tolist() == [0.0] * len(rewards)


def test_rewards_that_differ_can_teach():
    assert not zero_variance([0.0, 0.001])
    assert not zero_variance([1000.0, 1000.5])


@pytest.mark.parametrize("name", ADVANTAGES)
def test_a_reward_that_is_no_number_is_refused(name):
    with pytest.raises(LossInputError, match="reward 2 of 3 is nan: every reward must be a finite number"):
        ADVANTAGES[name]([1.0, 0.0, math.nan])


def test_the_table_and_batch_normalized_are_all_that_settings_can_name():
    assert {*ADVANTAGES, "batch_normalized"} == set(get_args(Advantage))


def test_return_to_go_sums_what_is_still_to_come():
    assert return_to_go([1, 2, 0, 4]).tolist() == [7, 6, 4, 4]


def test_batch_normalized_looks_at_trained_tokens_only():
    masks = [mask(0, 1, 1), mask(0, 1, 0)]
    first, second = batch_normalized([np.array([99.0, 1, 2]), np.array([-99.0, 6, 50])], masks)
    std = math.sqrt(((1 - 3) ** 2 + (2 - 3) ** 2 + (6 - 3) ** 2) / 3)  # the population's, about the mean 3
    np.testing.assert_allclose(first, [0, -2 / std, -1 / std])
    np.testing.assert_allclose(second, [0, 3 / std, 0])


def test_batch_normalized_of_equal_advantages_is_nothing():
    assert not np.concatenate(batch_normalized([np.ones(2), np.ones(3)], [mask(0, 1), mask(0, 1, 1)])).any()


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


@pytest.mark.parametrize("name", ADVANTAGES)
def test_credit_compares_within_a_group_and_fills_its_sequences_trained_tokens(name):
    rewards, masks = [1.0, 5.0, 0.0, 0.0, 9.0], [mask(0, 1, 1), mask(0, 1), mask(0, 1, 0), mask(0, 1), mask(0, 1)]
    found = credit(name, groups=["a", "b", "a", "a", "b"], rewards=rewards, loss_masks=masks)
    a, b = ADVANTAGES[name]([1.0, 0.0, 0.0]), ADVANTAGES[name]([5.0, 9.0])
    expected = [[0, a[0], a[0]], [0, b[0]], [0, a[1], 0], [0, a[2]], [0, b[1]]]
    for row, values in zip(found, expected, strict=True):
        np.testing.assert_allclose(row, values, rtol=1e-6)
        assert row.dtype == np.float32


def test_a_penalty_is_taken_off_a_sequences_reward_before_its_group_is_compared():
    masks = [mask(0, 1, 1), mask(0, 1, 1)]
    penalties = [mask(9, 0.25, 0.25), mask(9, 0, 0)]  # what stands at masked tokens costs nothing
    found = credit("group_centered", groups=["g", "g"], rewards=[1.0, 0.0], loss_masks=masks, penalties=penalties)
    assert [row.tolist() for row in found] == [[0, 0.25, 0.25], [0, -0.25, -0.25]]


def test_batch_normalized_credit_takes_off_each_token_what_is_still_to_come():
    masks = [mask(0, 1, 1), mask(0, 1, 0)]
    penalties = [mask(9, 0.5, 0.25), mask(9, 0.75, 9)]
    found = credit("batch_normalized", groups=["a", "b"], rewards=[1.0, 1.0], loss_masks=masks, penalties=penalties)
    returns = np.array([1 - 0.75, 1 - 0.25, 1 - 0.75])
    expected = (returns - returns.mean()) / returns.std()
    np.testing.assert_allclose(found[0], [0, *expected[:2]], rtol=1e-6)
    np.testing.assert_allclose(found[1], [0, expected[2], 0], rtol=1e-6)


def test_credit_names_the_sequence_whose_reward_is_no_number():
    for advantage in get_args(Advantage):
        with pytest.raises(LossInputError, match="reward 1 of 2 is inf"):
            credit(advantage, groups=["a", "b"], rewards=[1.0, math.inf], loss_masks=[mask(0, 1), mask(0, 1)])
