"""Credit without a critic: what an episode's reward is worth beside its group's, or its batch's, token by token."""

import math
from typing import get_args

import numpy as np
import pytest

from fettle.advantages import ADVANTAGES, credit, return_to_go
from fettle.config import Advantage
from fettle.errors import ConfigError, LossInputError


def mask(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def test_the_tables_advantages_and_three_more_are_all_that_settings_can_name():
    assert {*ADVANTAGES, "batch_normalized", "gae", "none"} == set(get_args(Advantage))


def test_an_advantage_that_needs_a_critic_is_refused_here():
    with pytest.raises(ConfigError, match="advantage gae is measured against a critic's values"):
        credit("gae", groups=["g"], rewards=[1.0], loss_masks=[mask(0, 1)])


def test_without_an_advantage_rewards_get_no_credit_and_penalties_still_count():
    masks, penalties = [mask(0, 1, 1), mask(0, 1, 0)], [mask(9, 0.5, 0.25), mask(9, 0, 9)]
    batch = {"groups": ["a", "a"], "rewards": [1.0, 3.0], "loss_masks": masks}
    assert not np.concatenate(credit("none", **batch)).any()
    assert [row.tolist() for row in credit("none", **batch, penalties=penalties)] == [[0, -0.75, -0.25], [0, 0, 0]]


def test_return_to_go_sums_what_is_still_to_come():
    assert return_to_go([1, 2, 0, 4]).tolist() == [7, 6, 4, 4]


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
    for advantage in set(get_args(Advantage)) - {"gae"}:
        with pytest.raises(LossInputError, match="reward 1 of 2 is inf"):
            credit(advantage, groups=["a", "b"], rewards=[1.0, math.inf], loss_masks=[mask(0, 1), mask(0, 1)])
