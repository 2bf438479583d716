"""Generalised advantages, by the recursion here and by the paper's sum there."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fettle.advantages import explained_variance, gae, token_gae
from fettle.errors import LossInputError


def mask(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


@dataclass
class Row:
    """Steps of several episodes, one after another."""

    rewards: list[float]
    values: list[float]
    next_values: list[float]
    terminated: list[bool]
    truncated: list[bool]
    gamma: float
    lam: float

    def estimated(self) -> tuple[np.ndarray, np.ndarray]:
        return gae(
            self.rewards,
            self.values,
            next_values=self.next_values,
            terminated=self.terminated,
            truncated=self.truncated,
            gamma=self.gamma,
            lam=self.lam,
        )

    def summed(self) -> list[float]:
        """The paper's sum, A_t = Σ_l (γλ)^l δ_{t+l}, over the steps that are left of each step's own episode."""
        ends = [over or cut for over, cut in zip(self.terminated, self.truncated, strict=True)]
        return [
            math.fsum(
                (self.gamma * self.lam) ** (later - t) * self.residual(later)
                for later in range(t, len(ends))
                if not any(ends[t:later])
            )
            for t in range(len(ends))
        ]

    def residual(self, t: int) -> float:
        worth_after = 0.0 if self.terminated[t] else self.next_values[t]
        return self.rewards[t] + self.gamma * worth_after - self.values[t]


NUMBER = st.floats(-10, 10)
SHARE = st.floats(0, 1)


@st.composite
def rows(draw) -> Row:
    length = draw(st.integers(1, 12))
    numbers = st.lists(NUMBER, min_size=length, max_size=length)
    flags = st.lists(st.booleans(), min_size=length, max_size=length)
    return Row(draw(numbers), draw(numbers), draw(numbers), draw(flags), draw(flags), draw(SHARE), draw(SHARE))


def test_two_episodes_in_a_row_of_which_the_first_terminates():
    advantages, returns = gae(
        [1, 1, 1, 1], [0.5] * 4, next_values=[0.5, 0.5, 0.5, 2], terminated=[0, 1, 0, 0], gamma=0.9, lam=0.8
    )
    np.testing.assert_allclose(advantages, [1.31, 0.5, 2.606, 2.3])
    np.testing.assert_allclose(returns, [1.81, 1.0, 3.106, 2.8])


def test_a_reward_at_the_end_fades_towards_the_beginning():
    """To four places 0.8319, 0.8845, 0.9405 and 1."""
    advantages, _ = gae([0, 0, 0, 1], [0] * 4, next_values=[0] * 4, terminated=[0, 0, 0, 1], gamma=0.99, lam=0.95)
    np.testing.assert_allclose(advantages, [0.9405**3, 0.9405**2, 0.9405, 1])
    np.testing.assert_allclose(advantages, [0.8319, 0.8845, 0.9405, 1], atol=5e-5)


def test_truncation_counts_what_would_have_come_and_termination_does_not():
    cut, _ = gae([1, 1], [0, 0], next_values=[5, 0], truncated=[1, 0], gamma=0.5)
    over, _ = gae([1, 1], [0, 0], next_values=[5, 0], terminated=[1, 0], gamma=0.5)
    assert cut.tolist() == [1 + 0.5 * 5, 1]
    assert over.tolist() == [1, 1]


@given(rows())
def test_the_recursion_is_the_papers_sum(row):
    advantages, returns = row.estimated()
    np.testing.assert_allclose(advantages, row.summed(), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(returns, advantages + np.array(row.values), rtol=1e-12)


@given(rows(), rows())
def test_an_episode_that_is_put_in_after_another_has_ended_changes_nothing_before_it(first, second):
    first.terminated[-1] = True
    alone = first.estimated()[0]
    joined = Row(
        first.rewards + second.rewards,
        first.values + second.values,
        first.next_values + second.next_values,
        first.terminated + second.terminated,
        first.truncated + second.truncated,
        first.gamma,
        first.lam,
    )
    assert joined.estimated()[0][: len(alone)].tobytes() == alone.tobytes()


@given(rows())
def test_lambda_1_is_the_discounted_return_less_the_value(row):
    row.lam, row.terminated, row.truncated = 1.0, [False] * len(row.rewards), [False] * len(row.rewards)
    row.next_values = [*row.values[1:], row.next_values[-1]]
    to_come = row.next_values[-1]
    for t in reversed(range(len(row.rewards))):
        to_come = row.rewards[t] + row.gamma * to_come
    assert row.estimated()[1][0] == pytest.approx(to_come, abs=1e-9)


def test_tokens_of_the_environment_are_no_steps():
    """Two turns with two tokens of the environment between them, against the same tokens without them."""
    rewards, values = [0, 0, 1, 0, 0, 0, 2], [9, 0.5, 0.25, 9, 9, 0.75, 1.5]
    loss_mask = mask(0, 1, 1, 0, 0, 1, 1)
    advantages, returns = token_gae(rewards, values, loss_mask, bootstrap=3.0, gamma=0.9, lam=0.8)
    kept = loss_mask > 0
    expected, targets = gae(
        [0, 1, 0, 2], [0.5, 0.25, 0.75, 1.5], next_values=[0.25, 0.75, 1.5, 3.0], gamma=0.9, lam=0.8
    )
    np.testing.assert_allclose(advantages[kept], expected, rtol=1e-6)
    np.testing.assert_allclose(returns[kept], targets, rtol=1e-6)
    assert not advantages[~kept].any()
    assert not returns[~kept].any()
    assert advantages.dtype == returns.dtype == np.float32


def test_with_no_discount_a_perfect_critic_leaves_no_advantage():
    rewards, values = [0, 0, 0, 1], [0, 1, 1, 1]
    advantages, returns = token_gae(rewards, values, mask(0, 1, 1, 1), bootstrap=0.0)
    assert advantages.tolist() == [0, 0, 0, 0]
    assert returns.tolist() == [0, 1, 1, 1]


def test_a_sequence_without_trained_tokens_has_no_credit():
    advantages, returns = token_gae([0, 0], [1, 1], mask(0, 0), bootstrap=0.0)
    assert advantages.tolist() == returns.tolist() == [0, 0]


def test_a_reward_on_a_masked_token_is_refused_rather_than_lost():
    with pytest.raises(LossInputError, match=r"reward 1 is 0\.5 at a token that is not trained on"):
        token_gae([0, 0.5, 0], [0, 0, 0], mask(0, 0, 1), bootstrap=0.0)


@pytest.mark.parametrize(
    ("rewards", "values", "message"),
    [
        ([0, 1], [0, 0, 0], r"the rewards have shape \[2\] beside tokens of shape \[3\]: give one reward a token"),
        ([0, 0, 1], [0, 0], r"the values have shape \[2\] beside tokens of shape \[3\]"),
        ([0, 0, math.nan], [0, 0, 0], "reward 2 of 3 is nan"),
        ([0, 0, 1], [0, math.inf, 0], "value 1 of 3 is inf"),
    ],
)
def test_what_is_wrong_with_an_array_is_said(rewards, values, message):
    with pytest.raises(LossInputError, match=message):
        token_gae(rewards, values, mask(0, 1, 1), bootstrap=0.0)


def test_the_worth_of_the_end_must_be_a_number():
    with pytest.raises(LossInputError, match="next value 1 of 2 is nan"):
        token_gae([0, 0, 1], [0, 0, 0], mask(0, 1, 1), bootstrap=math.nan)


def test_explained_variance_by_hand():
    """Returns 1, 2, 3 have variance 2/3; errors 0, 0, 1 have variance 2/9."""
    returns, values = [mask(9, 1, 2), mask(9, 3)], [mask(-9, 1, 2), mask(9, 2)]
    assert explained_variance(values, returns, [mask(0, 1, 1), mask(0, 1)]) == pytest.approx(1 - (2 / 9) / (2 / 3))


def test_explained_variance_is_1_for_a_critic_that_knows_and_0_for_one_that_knows_the_mean():
    returns, masks = [mask(0, 1, 2, 6)], [mask(0, 1, 1, 1)]
    assert explained_variance(returns, returns, masks) == 1
    assert explained_variance([mask(0, 3, 3, 3)], returns, masks) == pytest.approx(0)


def test_explained_variance_of_a_critic_that_diverges_is_not_cut():
    assert explained_variance([mask(0, 100, -100)], [mask(0, -1, 1)], [mask(0, 1, 1)]) == pytest.approx(1 - 101**2)


@pytest.mark.parametrize("returns", [mask(0, 2, 2), mask(7, 2, 2)])
def test_where_returns_do_not_vary_there_is_nothing_to_explain(returns):
    assert explained_variance([mask(0, 1, 5)], [returns], [mask(0, 1, 1)]) is None


def test_of_an_empty_batch_nothing_is_explained():
    assert explained_variance([], [], []) is None
