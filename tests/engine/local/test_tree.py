"""Trees: what sequences begin with alike is run once, every sequence is there, and budgets hold."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fettle.engine.local.tree import WORTH, Tree, computed, forest, tree_bins
from fettle.errors import ConfigError

ROWS = st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=30), min_size=1, max_size=20)


def test_a_group_shares_its_prompt():
    first, second = np.arange(100, 120), np.arange(200, 230)
    rows = [np.concatenate([prompt, [i, i]]) for i in range(4) for prompt in (first, second)]
    assert {(tree.shared, tuple(sorted(tree.members))) for tree in forest(rows)} == {
        (20, (0, 2, 4, 6)),
        (30, (1, 3, 5, 7)),
    }


def test_a_system_message_does_not_tear_groups_apart():
    system = np.arange(300, 310)
    prompts = [np.concatenate([system, np.arange(start, start + 20)]) for start in (100, 200)]
    rows = [np.concatenate([prompt, [i]]) for prompt in prompts for i in range(3)]
    assert sorted((tree.shared, len(tree.members)) for tree in forest(rows)) == [(30, 3), (30, 3)]


def test_strangers_and_short_beginnings_share_nothing():
    rows = [np.array([7] * (WORTH - 1) + [i]) for i in range(3)] + [np.arange(50)]
    assert all(tree.shared == 0 and len(tree.members) == 1 for tree in forest(rows))


def test_the_same_sequence_twice_is_run_once():
    row = np.arange(20)
    (tree,) = forest([row, row.copy()])
    assert (tree.shared, computed(tree, [20, 20])) == (20, 20)


@given(ROWS)
def test_trees_hold_every_sequence_once_and_what_they_share_is_shared(rows):
    rows = [np.array(row) for row in rows]
    trees = forest(rows)
    assert sorted(i for tree in trees for i in tree.members) == list(range(len(rows)))
    for tree in trees:
        assert len({tuple(rows[i][: tree.shared]) for i in tree.members}) == 1


@given(ROWS)
def test_no_pair_of_neighbours_would_save_more(rows):
    rows = [np.array(row) for row in rows]
    lengths = [len(row) for row in rows]
    found = sum(computed(tree, lengths) for tree in forest(rows))
    order = sorted(range(len(rows)), key=lambda i: (tuple(rows[i]), i))
    for a, b in pairwise(order):
        common = int(np.cumprod(rows[a][: len(rows[b])] == rows[b][: len(rows[a])]).sum())
        assert common < WORTH or found <= sum(lengths) - common


@given(ROWS.filter(lambda rows: len(rows) % 2 == 0), st.integers(60, 200))
def test_pairs_stay_together_in_their_order_within_the_budget(rows, budget):
    rows = [np.array(row) for row in rows]
    lengths = [len(row) for row in rows]
    together = [(2 * n + 1, 2 * n) for n in range(len(rows) // 2)]
    bins = tree_bins(forest(rows, together=together), rows, budget=budget)
    assert sorted(unit for trees in bins for tree in trees for unit in tree.units) == sorted(together)
    assert all(sum(computed(tree, lengths) for tree in trees) <= budget for trees in bins)


def test_a_tree_too_large_for_one_micro_batch_is_split_and_runs_its_beginning_again():
    bins = tree_bins([Tree(((0,), (1,), (2,)), 10)], beginning(10, 14, 14, 14), budget=18)
    assert bins == [[Tree(((2,),), 0)], [Tree(((0,), (1,)), 10)]] or bins == [
        [Tree(((0,), (1,)), 10)],
        [Tree(((2,),), 0)],
    ]


def test_a_pair_too_large_with_what_all_begin_with_shares_what_it_begins_with_itself():
    """Ten tokens are everybody's and twenty the first pair's: 10 + 20 + 20 of them do not fit, and 30 + 10 + 10 do."""
    pair = [np.concatenate([row, np.full(10, last)]) for row, last in zip(beginning(30, 30, 30), (1, 2), strict=True)]
    rows = [*pair, *(np.concatenate([np.arange(10), [7, last]]) for last in (1, 2))]
    bins = tree_bins([Tree(((0, 1), (2, 3)), 10)], rows, budget=50)
    assert sorted((*tree.units, tree.shared) for trees in bins for tree in trees) == [((0, 1), 30), ((2, 3), 10)]


@pytest.mark.parametrize(
    ("units", "message"),
    [(((0,), (1,)), "datum 1 has 29 tokens to run"), (((0, 1),), "the pair of data 0 and 1 has 31 tokens to run")],
)
def test_what_is_over_the_budget_is_named_with_what_would_be_run_and_the_setting(units, message):
    with pytest.raises(ConfigError, match=f"{message}, and engine.train_tokens allows 20"):
        tree_bins([Tree(units, 10)], beginning(10, 12, 29), budget=20)


def beginning(shared: int, *lengths: int) -> list[np.ndarray]:
    """Sequences of these lengths that have their first tokens in common, and no others."""
    return [
        np.concatenate([np.arange(shared), 100 * (i + 1) + np.arange(length - shared)])
        for i, length in enumerate(lengths)
    ]
