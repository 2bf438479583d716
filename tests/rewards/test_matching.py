from fractions import Fraction

import pytest

from fettle.errors import DataError
from fettle.rewards.matching import exact_match, number, quantity
from fettle.types import Message, Task


def task(answer: object) -> Task:
    return Task((Message("user", "?"),), {"answer": answer}, "questions")


@pytest.mark.parametrize(("answer", "reply"), [("Paris", " Paris\n"), (42, "42"), (0.5, "0.5")])
def test_exact_match_pays_for_the_same_text(answer, reply):
    assert exact_match(reply, task(answer)) == 1.0


@pytest.mark.parametrize("reply", ["paris", "Paris.", "Paris or Rome", ""])
def test_exact_match_pays_for_nothing_else(reply):
    assert exact_match(reply, task("Paris")) == 0.0


@pytest.mark.parametrize("answer", [None, True, ["Paris"], {"city": "Paris"}])
def test_an_answer_that_is_neither_text_nor_number_is_a_fault_of_the_task(answer):
    with pytest.raises(DataError, match="must be a text or a number"):
        exact_match("Paris", task(answer))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", Fraction(7)),
        ("+007", Fraction(7)),
        ("-7", Fraction(-7)),
        ("1,234,567.5", Fraction(2469135, 2)),
        (".5", Fraction(1, 2)),
        ("5.", Fraction(5)),
        ("-0", Fraction(0)),
        ("6/8", Fraction(3, 4)),
        ("-6/08", Fraction(-3, 4)),
        ("0.1", Fraction(1, 10)),
    ],
)
def test_plain_numbers_are_read_exactly(text, value):
    assert quantity(f" {text} ") == value


@pytest.mark.parametrize(
    "text",
    [
        *("", ".", "-", ",", "+-1", "1 2", "1-2", "0x10", "1_000", "nan", "inf", "1e3", "1e999999999"),
        *(
            "12,34",
            "1,2345",
            ",123",
            "1,234,",
            "1/0",
            "1/-2",
            "1/2/3",
            "1.5/2",
            "٣",
            "²",
            "7%",
            "$7",
            "9" * 5000,
            "2**99",
        ),
    ],
)
def test_nothing_else_is_a_number(text):
    assert quantity(text) is None


def test_number_pays_for_the_value_however_it_is_written():
    assert [number(reply, task("1000.50")) for reply in ("1,000.5", "2001/2", "+1000.500")] == [1.0, 1.0, 1.0]


def test_number_is_exact_where_floats_are_not():
    assert number("0.30000000000000000001", task("0.3")) == 0.0


@pytest.mark.parametrize("reply", ["8", "7 or 8", "0123456789", "seven", ""])
def test_number_pays_for_nothing_else(reply):
    assert number(reply, task("7")) == 0.0


def test_a_task_whose_answer_is_no_number_is_at_fault():
    with pytest.raises(DataError, match="'seven' is not a number"):
        number("7", task("seven"))
