"""How prompts share forward passes, and how a batch closes up."""

import numpy as np
import pytest

from fettle.engine.local.paths import PADDING, PREFILL_TOKENS, closed_up, prefill_groups


@pytest.mark.parametrize(
    "lengths", [[], [5], [30, 2, 30, 900, 31], [4096] * 5, list(range(1, 400)), [20_000, 20_000, 3]]
)
def test_every_prompt_is_in_one_pass_that_is_neither_too_large_nor_mostly_padding(lengths: list[int]) -> None:
    groups = prefill_groups(lengths)
    assert sorted(place for group in groups for place in group) == list(range(len(lengths)))
    for group in groups:
        own = [lengths[place] for place in group]
        assert len(group) * max(own) <= PREFILL_TOKENS or len(group) == 1
        assert len(group) * max(own) - sum(own) <= PADDING


def test_prompts_of_like_length_share_a_pass() -> None:
    assert prefill_groups([40, 44, 41, 39]) == [[1, 2, 0, 3]]


def test_a_batch_closes_up_with_as_few_moves_as_there_are_gaps() -> None:
    finished = np.array([False, True, False, True, False, True, False])
    assert closed_up(finished).tolist() == [0, 4, 2, 6]
    assert closed_up(np.array([False, False])).tolist() == [0, 1]
    assert closed_up(np.array([True, True])).tolist() == []
    random = np.random.default_rng(0)
    for _ in range(50):
        finished = random.random(20) < 0.4
        order = closed_up(finished)
        assert sorted(order) == np.flatnonzero(~finished).tolist()
        assert (order != np.arange(len(order))).sum() == finished[: len(order)].sum()
