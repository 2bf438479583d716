import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fettle.cluster.shares import dealt, gathered
from fettle.engine.local.group import Alone, agreed, share
from fettle.errors import LossInputError

LENGTHS = st.lists(st.integers(1, 40), max_size=12)


class Rank(Alone):
    """One of several, which hears what the others are said to say."""

    def __init__(self, rank: int, size: int, others: tuple[object, ...] = ()) -> None:
        self.rank, self.size, self.others = rank, size, others

    def told(self, own: object) -> list[object]:
        return [own, *self.others]


@settings(max_examples=40)
@given(LENGTHS, st.integers(1, 4))
def test_every_request_is_dealt_once_and_answered_in_its_place(costs, ranks):
    shares = dealt(costs, ranks)
    assert sorted(i for own in shares for i in own) == list(range(len(costs)))
    assert gathered(shares, [[-i for i in own] for own in shares]) == [-i for i in range(len(costs))]
    if len(costs) >= ranks:
        assert all(shares)


@settings(max_examples=60)
@given(LENGTHS, st.integers(2, 4), st.booleans(), st.booleans())
def test_ranks_share_out_a_call_without_parting_a_pair(lengths, ranks, packed, paired):
    sequences = [np.arange(length, dtype=np.int32) for length in lengths]
    together = [(i, i + 1) for i in range(0, len(lengths) - 1, 2)] if paired else None
    shares = [share(sequences, Rank(rank, ranks), together=together, packed=packed) for rank in range(ranks)]
    units = sorted(tuple(unit) for own in shares for unit in own)
    assert units == sorted(together if paired else [(i,) for i in range(len(lengths))])


def test_a_group_that_begins_alike_stays_on_one_rank_unless_it_is_more_than_a_fair_part():
    prompt, other = list(range(20)), list(range(50, 70))
    groups = [np.array([*begin, 90 + i]) for begin in (prompt, other) for i in range(3)]
    first, second = (share(groups, Rank(rank, 2), together=None, packed=True) for rank in range(2))
    assert {i < 3 for (i,) in first} != {i < 3 for (i,) in second}
    alone = [share(groups[:3], Rank(rank, 2), together=None, packed=True) for rank in range(2)]
    assert all(alone), "one group keeps all ranks at work"


def test_what_one_rank_fails_at_all_raise():
    fault = LossInputError("the loss is nan")

    def failing() -> int:
        raise fault

    assert agreed(Rank(0, 2, (2,)), lambda: 1) == [1, 2]
    for own, other in ((failing, 2), (lambda: 1, fault)):
        with pytest.raises(LossInputError, match="the loss is nan"):
            agreed(Rank(0, 2, (other,)), own)
