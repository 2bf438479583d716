"""What is held out in a file of its own."""

import pytest

from fettle.data import held_apart
from fettle.errors import DataError
from fettle.types import Message


def talk(asked: str, said: str = "yes") -> tuple[Message, ...]:
    return Message("user", asked), Message("assistant", said)


def held(training, heldout, *, most: int = 50, seed: int = 0):
    return held_apart(training, heldout, lambda row: row[:-1], most=most, seed=seed, path="held.jsonl")


def test_it_is_what_the_file_holds_once_for_each_question_in_its_order():
    rows = [talk("a"), talk("b"), talk("A", "again"), talk("c")]
    assert held([talk("z")], rows) == [rows[0], rows[1], rows[3]]


def test_of_many_some_are_chosen_by_the_seed():
    rows = [talk(str(number)) for number in range(40)]
    some = held([talk("z")], rows, most=5)
    assert len(some) == 5
    assert some == held([talk("z")], rows, most=5)
    assert some != held([talk("z")], rows, most=5, seed=1)


def test_what_is_trained_on_is_not_held_out():
    with pytest.raises(DataError, match=r"1 of what held\.jsonl holds out is trained on, such as 'user: a b'"):
        held([talk("a  B")], [talk("c"), talk("A b")])
