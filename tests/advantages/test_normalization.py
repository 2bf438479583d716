"""Whose mean is taken off, and by whose deviation is divided."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fettle.advantages import batch_normalized, normalized
from fettle.errors import LossInputError


def mask(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def test_batch_normalized_looks_at_trained_tokens_only():
    masks = [mask(0, 1, 1), mask(0, 1, 0)]
    first, second = batch_normalized([np.array([99.0, 1, 2]), np.array([-99.0, 6, 50])], masks)
    std = math.sqrt(((1 - 3) ** 2 + (2 - 3) ** 2 + (6 - 3) ** 2) / 3)  # the population's, about the mean 3
    np.testing.assert_allclose(first, [0, -2 / std, -1 / std])
    np.testing.assert_allclose(second, [0, 3 / std, 0])


def test_batch_normalized_of_equal_advantages_is_nothing():
    assert not np.concatenate(batch_normalized([np.ones(2), np.ones(3)], [mask(0, 1), mask(0, 1, 1)])).any()


MASKS = [mask(0, 1, 1), mask(0, 1, 0), mask(0, 1, 1)]
ADVANTAGES = [np.array([99.0, 1, 2]), np.array([-99.0, 6, 50]), np.array([7.0, 4, 8])]
GROUPS = ["a", "b", "a"]


def test_no_scope_leaves_advantages_as_they_are():
    found = normalized(ADVANTAGES, MASKS, GROUPS, scope="none")
    assert [row.tolist() for row in found] == [[0, 1, 2], [0, 6, 0], [0, 4, 8]]


def test_a_batch_is_compared_over_its_trained_tokens():
    tokens = np.array([1, 2, 6, 4, 8])
    scale = (tokens - tokens.mean()) / tokens.std()
    found = normalized(ADVANTAGES, MASKS, GROUPS, scope="batch")
    np.testing.assert_allclose(np.concatenate(found), [0, *scale[:2], 0, scale[2], 0, 0, *scale[3:]], rtol=1e-6)


def test_a_group_is_compared_over_the_trained_tokens_of_its_sequences():
    """Group a has 1, 2, 4, 8; group b has one token alone, which has nothing to be compared with."""
    tokens = np.array([1, 2, 4, 8])
    scale = (tokens - tokens.mean()) / tokens.std()
    found = normalized(ADVANTAGES, MASKS, GROUPS, scope="group")
    np.testing.assert_allclose(np.concatenate(found), [0, *scale[:2], 0, 0, 0, 0, *scale[2:]], rtol=1e-6)


@given(
    st.lists(st.lists(st.floats(-100, 100), min_size=2, max_size=5), min_size=2, max_size=5),
    st.sampled_from(["batch", "group"]),
    st.floats(-1e6, 1e6),
)
def test_what_stands_at_masked_tokens_changes_nothing(rows, scope, noise):
    values = [np.array([0.0, *row]) for row in rows]
    masks = [mask(0, *(at % 2 for at in range(1, len(row) + 1))) for row in rows]
    groups = ["even" if at % 2 else "odd" for at in range(len(rows))]
    disturbed = [np.where(m > 0, v, noise) for v, m in zip(values, masks, strict=True)]
    for before, after in zip(
        normalized(values, masks, groups, scope=scope), normalized(disturbed, masks, groups, scope=scope), strict=True
    ):
        assert before.tobytes() == after.tobytes()


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=20), st.integers(1, 1000))
def test_the_batch_has_mean_0_and_deviation_1_unless_all_are_equal(row, scale):
    found = normalized([np.array(row) * scale], [mask(*[1] * len(row))], ["g"], scope="batch")[0].astype(float)
    assert found.mean() == pytest.approx(0, abs=1e-5)
    assert not found.any() or found.std() == pytest.approx(1, abs=1e-5)


def test_a_sequence_without_trained_tokens_is_all_zeros():
    for scope in ("none", "batch", "group"):
        found = normalized([np.ones(2), np.array([0.0, 3])], [mask(0, 0), mask(0, 1)], ["a", "b"], scope=scope)
        assert found[0].tolist() == [0, 0]


def test_an_advantage_that_is_no_number_is_refused():
    with pytest.raises(LossInputError, match="advantage 1 of 2 is nan"):
        normalized([np.array([0, 1, math.nan])], [mask(0, 1, 1)], ["g"], scope="batch")


def test_an_empty_batch_stays_empty():
    assert batch_normalized([], []) == []
