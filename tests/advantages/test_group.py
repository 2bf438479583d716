"""What an episode's reward is worth beside the others of its group."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fettle.advantages import ADVANTAGES, group_centered, group_normalized, leave_one_out, zero_variance
from fettle.errors import LossInputError

REWARDS = st.lists(st.floats(-10, 10), min_size=1, max_size=9)


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
