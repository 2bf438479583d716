"""Frames: what goes in comes out to the bit, and bytes that are no frame are refused."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fettle.calls import Close, ForwardBackward, OptimStep, Pin, Save, call_digest, call_of, call_tree
from fettle.config import PPO, AdamW
from fettle.errors import BusyError, ConfigError, DataError, LossInputError, NotFoundError
from fettle.frames import batch_of, batch_tree, packed, plain, result_of, result_tree, unpacked
from fettle.types import Completion, Datum, ForwardResult, OptimResult, Span, datum

ARRAYS = [
    np.array([1, -2], np.int32),
    np.array([[0.5, np.nan], [np.inf, 3]], np.float32),
    np.zeros((0, 4), np.float64),
    np.array(7, np.int64),
    np.array([0, 255], np.uint8),
]


def same(one: Datum, other: Datum) -> bool:
    arrays = [(one.tokens, other.tokens), (one.loss_mask, other.loss_mask)]
    arrays += [(one.streams[name], other.streams[name]) for name in one.streams]
    plain = (one.temperature, one.group, dict(one.scalars)) == (other.temperature, other.group, dict(other.scalars))
    targets = (one.targets is None) == (other.targets is None) and (
        one.targets is None or np.array_equal(one.targets, other.targets)
    )
    return plain and targets and set(one.streams) == set(other.streams) and all(np.array_equal(a, b) for a, b in arrays)


@given(
    st.recursive(st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(), lambda inner: st.lists(inner))
)
def test_a_document_comes_back_as_it_was(tree):
    assert unpacked(packed({"x": tree})) == {"x": tree}


@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: f"{a.dtype}{a.shape}")
def test_an_array_keeps_its_type_its_shape_and_its_bits(array):
    found = unpacked(packed({"a": [array, "text"]}))["a"][0]
    assert found.dtype == array.dtype
    assert found.shape == array.shape
    assert found.tobytes() == array.tobytes()


def test_arrays_of_a_frame_cannot_be_written_to():
    assert not unpacked(packed(np.ones(3)))[:].flags.writeable


@pytest.mark.parametrize("cut", [0, 3, 7, 20, -1])
def test_a_frame_that_was_cut_off_is_refused(cut):
    frame = packed({"a": np.arange(5)})
    with pytest.raises(DataError):
        unpacked(frame[:cut])


@given(st.binary(max_size=200))
def test_bytes_that_are_no_frame_are_refused(noise):
    for frame in (noise, b"FTL1" + noise):
        with pytest.raises(DataError):
            unpacked(frame)


@pytest.mark.parametrize(
    "entry", [["<f4", [-1], 0], ["<f4", [1 << 62, 4], 0], ["|O", [1], 0], ["<f4", [1], -8], ["<f4", ["x"], 0], 3]
)
def test_a_header_that_lies_about_its_arrays_is_refused(entry):
    header = __import__("json").dumps({"tree": {"$": 0}, "arrays": [entry]}).encode()
    with pytest.raises(DataError):
        unpacked(b"FTL1" + len(header).to_bytes(4, "little") + header)


def test_people_are_shown_lists_and_no_nan():
    assert plain({"a": np.array([1.5, np.nan]), "b": (np.array([1]), math.inf)}) == {"a": [1.5, None], "b": [[1], None]}


BATCH = [
    datum([1, 2, 3], [0, 1, 1], advantages=[0, 0.1, -0.2], group="a", scalars={"preferred": 1.0}),
    datum([4, 5], [0, 1], temperature=0.3),
    Datum(np.array([6, 7], np.int32), np.array([0, 1], np.float32), targets=np.array([0, 9], np.int32)),
]


def test_a_batch_comes_back_datum_by_datum():
    for data in (BATCH, BATCH[:1], []):
        found = batch_of(unpacked(packed(batch_tree(data))))
        assert len(found) == len(data)
        assert all(map(same, data, found))


@pytest.mark.parametrize("data", [BATCH, BATCH[:1], BATCH[1:2], BATCH[2:], [BATCH[0], BATCH[0]], []])
def test_a_batch_that_was_read_is_said_as_its_data_are(data):
    found = batch_of(unpacked(packed(batch_tree(data))))
    assert packed(batch_tree(found)) == packed(batch_tree(list(found))) == packed(batch_tree(data))


def test_a_scalar_that_no_datum_has_is_not_said_again():
    said = batch_tree(BATCH[1:2]) | {"scalars": {"preferred": np.array([np.nan])}}
    assert packed(batch_tree(batch_of(said))) == packed(batch_tree(BATCH[1:2]))


def test_a_batch_can_be_written_by_hand():
    (found,) = batch_of({"tokens": [1, 2], "offsets": [0, 2], "loss_mask": [0, 1], "streams": {"advantages": [0, 1]}})
    assert same(found, datum([1, 2], [0, 1], advantages=[0, 1]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": [1]}, "tokens has shape"),
        ({"tokens": [1, 2.5, 3]}, "tokens must be whole numbers"),
        ({"tokens": [1, 2, 1 << 40]}, "beyond what int32 holds"),
        ({"offsets": [0, 3, 2]}, "never fall"),
        ({"loss_mask": ["x", 0, 0]}, "loss_mask must be numbers"),
        ({"streams": [1]}, "streams must be a mapping"),
        ({"colour": 1}, "no 'colour'"),
        ({"group": ["a", "b"]}, "one text for each"),
        ({"loss_mask": [1, 1, 1]}, "datum 0: loss_mask"),
    ],
)
def test_a_batch_that_cannot_be_is_refused_by_name(change, message):
    whole = {"tokens": [1, 2, 3], "offsets": [0, 3], "loss_mask": [0, 1, 1]}
    with pytest.raises((DataError, LossInputError), match=message):
        batch_of({**whole, **change})


@pytest.mark.parametrize(
    "result",
    [
        OptimResult(3, 0.1, skipped=True, seconds=0.25),
        [Completion([1, 2], [-0.1, -1e-9], "stop", 4, [-0.2, -0.3], [[(1, -0.1)], [(2, -0.5), (3, -1.0)]])],
        [Completion([1, 2], [-0.1, -0.2], "stop", 4, spans=(Span(0, 1, 4), Span(1, 2, 5)))],
        [],
        7,
        None,
    ],
    ids=lambda r: type(r).__name__,
)
def test_a_result_comes_back_as_it_was(result):
    found = result_of(unpacked(packed(result_tree(result))))
    assert repr(found) == repr(result)


def test_a_forward_result_keeps_every_bit():
    rows = [np.array([0, -0.1], np.float32), np.array([0, -3, -1e-20], np.float32)]
    result = ForwardResult(0.1 + 0.2, {"ratio": 1 / 3}, rows, 3, [], [0.7], {"forward": 0.1})
    found = result_of(unpacked(packed(result_tree(result))))
    assert (found.loss, found.metrics, found.num_tokens, found.scores) == (0.1 + 0.2, {"ratio": 1 / 3}, 3, [0.7])
    assert [row.tobytes() for row in found.logprobs] == [row.tobytes() for row in rows]


def test_an_error_comes_back_as_its_own_class():
    found = result_of(unpacked(packed(result_tree(BusyError("later", 3.5)))))
    assert (type(found), found.message, found.retry_after) == (BusyError, "later", 3.5)
    assert type(result_of(result_tree(NotFoundError("nobody")))) is NotFoundError


@pytest.mark.parametrize(
    "call",
    [
        ForwardBackward(BATCH, PPO(clip_low=0.1)),
        OptimStep(AdamW(), empty=True),
        Pin(),
        Save("a", optimizer=False),
        Close(),
    ],
    ids=lambda c: type(c).__name__,
)
def test_a_call_comes_back_as_it_was(call):
    found = call_of(unpacked(packed(call_tree(call))))
    assert type(found) is type(call)
    assert call_digest(found) == call_digest(call)


@pytest.mark.parametrize(
    ("tree", "error"),
    [
        ({"type": "dance"}, DataError),
        ({}, DataError),
        ({"type": "save", "name": 3}, DataError),
        ({"type": "pin", "name": "x"}, DataError),
        ({"type": "optim_step", "optimizer": {"learning_rate": -1}}, ConfigError),
        ({"type": "forward", "loss": {"type": "nothing"}, "data": batch_tree(BATCH)}, ConfigError),
    ],
)
def test_a_call_that_cannot_be_is_refused(tree, error):
    with pytest.raises(error):
        call_of(tree)
