"""The nouns refuse what would go wrong later."""

import numpy as np
import pytest

from fettle.errors import DataError, LossInputError
from fettle.types import Completion, Datum, Message, Task, Trajectory, Turn, datum


def test_a_stream_of_the_wrong_length_is_named_with_both_lengths():
    with pytest.raises(LossInputError, match=r"advantages has shape \[2\] beside 3 tokens"):
        datum([1, 2, 3], [0, 1, 1], advantages=[0.5, 0.5])


def test_a_mask_of_the_wrong_length_is_named():
    with pytest.raises(LossInputError, match=r"loss_mask has shape \[2\] beside 3 tokens"):
        datum([1, 2, 3], [0, 1])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_is_named_with_its_place(bad):
    with pytest.raises(LossInputError, match=rf"advantages\[2\] is {bad}"):
        datum([1, 2, 3], [0, 1, 1], advantages=[0, 1, bad])


def test_the_first_token_cannot_be_trained_on():
    with pytest.raises(LossInputError, match="first token has nothing before it"):
        datum([1, 2], [1, 1])


@pytest.mark.parametrize("tokens", [[], [7]])
def test_a_sequence_of_less_than_two_tokens_cannot_be_trained_on(tokens):
    with pytest.raises(LossInputError, match=f"this one has {len(tokens)}"):
        datum(tokens, [0] * len(tokens))


def test_weights_are_the_mask_until_they_are_given():
    assert datum([1, 2, 3], [0, 1, 1]).weights.tolist() == [0, 1, 1]
    assert datum([1, 2, 3], [0, 1, 1], weights=[0, 0.5, 0.5]).weights.tolist() == [0, 0.5, 0.5]


def test_arrays_are_what_the_wire_and_the_disk_hold():
    one = datum([1, 2], [0, 1], advantages=[0, 1])
    assert isinstance(one, Datum)
    assert (one.tokens.dtype, one.loss_mask.dtype, one.streams["advantages"].dtype) == (
        np.int32,
        np.float32,
        np.float32,
    )


def task(answer: object = "3", question: str = "1 + 2 =") -> Task:
    return Task((Message("user", question),), {"answer": answer}, "test")


def test_a_task_is_known_by_its_content():
    assert task().id == task().id
    assert len({task().id, task("4").id, task(question="2 + 1 =").id}) == 3


def test_an_answer_that_is_not_json_is_refused():
    with pytest.raises(DataError, match="an answer that is not JSON"):
        _ = task(object()).id


def test_a_trajectory_is_as_old_as_its_oldest_token():
    turns = tuple(
        Turn([1], Completion([2] * n, [-1.0] * n, "stop", policy_version=version), reward)
        for n, version, reward in ((2, 5, 0.25), (3, 4, 0.5))
    )
    played = Trajectory(task(), turns, (), terminated=True, truncated=False)
    assert (played.policy_version, played.num_sampled, played.reward) == (4, 5, 0.75)


@pytest.mark.parametrize("mask", [[0, 0.5, 1], [0, 2, 1], [0, -1, 1]])
def test_a_mask_of_other_numbers_is_sent_to_weights(mask):
    with pytest.raises(LossInputError, match="put those into a stream named weights"):
        datum([1, 2, 3], mask)


@pytest.mark.parametrize("tokens", [[1.5, 2.0], [[1, 2], [3, 4]]])
def test_tokens_are_one_row_of_whole_numbers(tokens):
    with pytest.raises(LossInputError, match="one row of whole numbers is needed"):
        datum(tokens, [0, 1])


def test_a_datum_cannot_be_of_temperature_zero():
    with pytest.raises(LossInputError, match=r"temperature is 0\.0"):
        datum([1, 2], [0, 1], temperature=0.0)
