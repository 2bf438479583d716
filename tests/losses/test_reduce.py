"""Weights carry every division, for the whole batch, before it is split."""

from typing import get_args

import numpy as np
import pytest

from fettle.config import FixedLength, Reduction, SequenceMean, SequenceSum, TokenMean
from fettle.errors import LossInputError
from fettle.losses import REDUCTIONS, weights
from fettle.losses.reduce import fixed_length, sequence_mean, sequence_sum, token_mean

MASKS = [np.float32([0, 1, 1, 1]), np.float32([0, 1, 0]), np.float32([0, 0, 0, 0, 0])]
"""Three trained tokens, one, and none."""


def per_token(found: list[np.ndarray]) -> list[list[float]]:
    return [row.tolist() for row in found]


def test_token_mean_gives_each_token_the_same():
    assert per_token(token_mean(MASKS)) == [[0, 0.25, 0.25, 0.25], [0, 0.25, 0], [0, 0, 0, 0, 0]]


def test_sequence_mean_gives_each_sequence_that_has_tokens_the_same():
    first, second, none = sequence_mean(MASKS)
    np.testing.assert_allclose(first, [0, 1 / 6, 1 / 6, 1 / 6])
    np.testing.assert_allclose(second, [0, 1 / 2, 0])
    assert not none.any()


def test_sequence_sum_divides_by_the_sequences_that_have_tokens():
    assert per_token(sequence_sum(MASKS)) == [[0, 0.5, 0.5, 0.5], [0, 0.5, 0], [0, 0, 0, 0, 0]]


def test_fixed_length_divides_by_a_constant_besides():
    np.testing.assert_allclose(np.concatenate(fixed_length(MASKS, length=10)), np.concatenate(sequence_sum(MASKS)) / 10)


def test_settings_choose_the_reduction_and_the_longest_completion_is_its_constant():
    for settings, expected in [
        (TokenMean(), token_mean(MASKS)),
        (SequenceMean(), sequence_mean(MASKS)),
        (SequenceSum(), sequence_sum(MASKS)),
        (FixedLength(), fixed_length(MASKS, length=10)),
    ]:
        assert per_token(weights(settings, MASKS, max_tokens=10)) == per_token(expected)


def test_the_table_has_every_type_of_reduction():
    assert set(REDUCTIONS) == {kind().type for kind in get_args(get_args(Reduction)[0])}


@pytest.mark.parametrize(
    ("settings", "total"), [(TokenMean(), 1), (SequenceMean(), 1), (SequenceSum(), 2), (FixedLength(), 2 / 3)]
)
def test_a_loss_of_one_everywhere_comes_to(settings, total):
    """1 for a mean; the mean length, here 4/2, for a sum; and that over the constant, here 3."""
    found = np.concatenate(weights(settings, MASKS, max_tokens=3))
    assert found.dtype == np.float32
    assert found.sum() == pytest.approx(total)


@pytest.mark.parametrize("settings", [TokenMean(), SequenceMean(), SequenceSum(), FixedLength()])
def test_a_batch_without_a_trained_token_is_refused(settings):
    for masks in ([], [np.zeros(3, np.float32), np.zeros(2, np.float32)]):
        with pytest.raises(LossInputError, match=f"no token is trained on in a batch of {len(masks)} sequences"):
            weights(settings, masks, max_tokens=4)
