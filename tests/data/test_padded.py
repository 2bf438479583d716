"""Data made into columns and read again are the same data."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from fettle.data import columns, group_columns, groups, pair_columns, pairs, sequences
from fettle.errors import LossInputError
from fettle.types import datum

ROWS = st.integers(2, 6).flatmap(
    lambda length: st.tuples(
        nps.arrays(np.int32, length, elements=st.integers(0, 2**31 - 1)),
        nps.arrays(np.float32, length, elements=st.sampled_from([0.0, 1.0])).filter(lambda mask: mask[1:].any()),
        nps.arrays(np.float32, length, elements=st.floats(-9, 0, width=32)),
        st.floats(-9, 0),
    )
)
ALL_STREAMS = ("sampling_logprobs", "advantages", "old_values")
RESPONSES = st.lists(st.integers(0, 99), min_size=1, max_size=4)


@given(rows=st.lists(ROWS, min_size=1, max_size=4), streams=st.sets(st.sampled_from(ALL_STREAMS)), whole=st.booleans())
def test_sequences_come_back_as_they_were(same, rows, streams, whole):
    data = [
        datum(
            tokens,
            np.where(np.arange(len(mask)), mask, 0),
            scalars={"reward": number, "behavior_logprob": number} if whole else {},
            **dict.fromkeys(streams, logprobs),
        )
        for tokens, mask, logprobs, number in rows
    ]
    assert all(map(same, sequences(columns(data)), data))


@given(
    rows=st.lists(st.tuples(st.lists(st.integers(0, 99), min_size=1, max_size=3), RESPONSES, RESPONSES), min_size=1),
    margin=st.floats(-5, 5),
)
def test_pairs_come_back_as_they_were(same, rows, margin):
    data = [
        datum(
            [*prompt, *reply],
            [0] * len(prompt) + [1] * len(reply),
            group=str(row),
            scalars={"preferred": preferred, "margin": margin},
        )
        for row, (prompt, better, worse) in enumerate(rows)
        for preferred, reply in ((1.0, better), (0.0, [*worse, 100]))
    ]
    assert all(map(same, pairs(pair_columns(data)), data))


@given(
    rows=st.lists(
        st.tuples(
            st.lists(st.integers(0, 99), min_size=1, max_size=3),
            st.lists(st.tuples(RESPONSES, st.floats(-5, 5)), min_size=2, max_size=4),
        ),
        min_size=1,
        max_size=3,
    )
)
def test_ragged_groups_come_back_as_they_were(same, rows):
    data = [
        datum(
            [*prompt, *reply],
            [0] * len(prompt) + [1] * len(reply),
            group=str(row),
            scalars={"reward": reward},
            sampling_logprobs=[0] * len(prompt) + [-0.5] * len(reply),
        )
        for row, (prompt, replies) in enumerate(rows)
        for reply, reward in replies
    ]
    assert all(map(same, groups(group_columns(data)), data))


@pytest.mark.parametrize(
    ("back", "data", "why"),
    [
        (columns, [], "there are no data"),
        (columns, [datum([1, 2], [0, 1], weights=[0, 1])], "no column holds weights"),
        (columns, [datum([1, 2], [0, 1]), datum([1, 2], [0, 1], advantages=[0, 1])], "that others lack"),
        (columns, [datum([1, 2], [0, 1], rewards=[0, 1], scalars={"reward": 1})], "rewards of tokens and of sequences"),
        (pair_columns, [datum([1, 2], [0, 1], group="a", scalars={"preferred": 1})], "the group 'a' is no pair"),
        (group_columns, [datum([1, 2], [0, 1])], "the data have no reward"),
        (
            group_columns,
            [datum([1, 2], [0, 1], scalars={"reward": 1}), datum([3, 2], [0, 1], scalars={"reward": 1})],
            "the group '' does not answer one prompt",
        ),
        (
            group_columns,
            [datum([1, 2, 3], mask, scalars={"reward": 1}) for mask in ([0, 1, 1], [0, 0, 1])],
            "does not train on its answers whole",
        ),
    ],
)
def test_data_without_a_column_are_refused(back, data, why):
    with pytest.raises(LossInputError, match=why):
        back(data)
