"""Micro-batches: every sequence once, like lengths together, never over the budget."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fettle.engine.local.layout import Laid, bins, micro_batch, side_by_side
from fettle.errors import ConfigError
from fettle.types import Datum, datum


@given(st.lists(st.integers(2, 50), max_size=40), st.integers(50, 300))
def test_bins_hold_every_sequence_once_within_the_budget(lengths, budget):
    groups = bins(lengths, budget=budget)
    assert sorted(index for group in groups for index in group) == list(range(len(lengths)))
    assert all(len(group) * max(lengths[i] for i in group) <= budget for group in groups)


@given(st.lists(st.tuples(st.integers(2, 50), st.integers(2, 50)), max_size=20), st.integers(100, 300))
def test_pairs_share_a_bin_in_their_order_within_the_budget(pairs, budget):
    lengths = [length for pair in pairs for length in pair]
    together = [(2 * n + 1, 2 * n) for n in range(len(pairs))]
    groups = bins(lengths, budget=budget, together=together)
    assert sorted(zip(*[iter(index for group in groups for index in group)] * 2, strict=True)) == together
    assert all(len(group) % 2 == 0 for group in groups)
    assert all(len(group) * max(lengths[i] for i in group) <= budget for group in groups)


def test_a_sequence_over_the_budget_is_named_with_the_setting():
    with pytest.raises(ConfigError, match=r"datum 1 has 9 tokens, and engine.train_tokens allows 8"):
        bins([3, 9], budget=8)


@given(st.lists(st.integers(2, 50), max_size=40), st.integers(50, 300), st.integers(2, 50))
def test_bins_hold_sequences_of_one_side_of_a_length(lengths, budget, steady):
    for group in bins(lengths, budget=budget, steady=steady):
        assert len({lengths[index] > steady for index in group}) == 1


def test_a_pair_on_both_sides_of_a_length_is_refused():
    with pytest.raises(ConfigError, match="data 1 and 0 are a pair, and only one is longer than 8 tokens"):
        bins([3, 9], budget=50, together=[(1, 0)], steady=8)


def test_padding_is_zero_and_untrained():
    data = [
        datum([1, 2], [0, 1], advantages=[0, 5]),
        datum([3, 4, 5], [0, 1, 1], advantages=[0, 6, 7], temperature=0.5),
    ]
    batch = micro_batch(data, [0, 1], beside(data), ["advantages"])
    assert batch.targets.tolist() == [[1, 2, 0], [3, 4, 5]]
    assert batch.loss_mask.tolist() == [[0, 1, 0], [0, 1, 1]]
    assert batch.streams["advantages"].tolist() == [[0, 5, 0], [0, 6, 7]]
    assert batch.temperature.tolist() == [1.0, 0.5]


def test_weights_do_not_reach_masked_tokens():
    data = [datum([1, 2, 3], [0, 1, 0], weights=[9, 9, 9])]
    batch = micro_batch(data, [0], beside(data), [])
    assert batch.weights.tolist() == [[0, 9, 0]]


def beside(data: list[Datum]) -> Laid:
    return side_by_side([row.tokens for row in data], torch.device("cpu"))
