"""Values are compared by kind and by number, outputs by lines; nothing an answer says can make a wrong one right."""

import math

import pytest

from fettle.rewards.code_inside import encoded
from fettle.rewards.comparison import same, same_output

VALUES = [
    *(None, True, False, 0, 1, -1, 2**70, 0.0, 1.0, 1e300, math.inf, "", "1", "[1]", b"1", 1j),
    *([], [1], [[1]], [1, 2], [2, 1], (), (1,), (1, 2), set(), {1}, {1, 2}, {}, {1: 2}, {"1": 2}, {1: {2: (3,)}}),
]


@pytest.mark.parametrize("one", range(len(VALUES)))
def test_each_value_is_the_same_as_itself_and_no_other(one):
    found = [other for other, value in enumerate(VALUES) if same(encoded(value), encoded(VALUES[one]))]
    assert found == [one]


def test_what_has_no_order_is_compared_without_one():
    assert same(encoded({3, 1, 2}), {"set": [1, 2, 3]})
    assert same(encoded({"b": 1, "a": 2}), encoded({"a": 2, "b": 1}))
    assert not same({"set": [1, 1]}, encoded({1}))


@pytest.mark.parametrize(
    ("found", "expected", "is_same"),
    [(0.1 + 0.2, 0.3, True), (0.31, 0.3, False), ([1.0000000001], [1.0], True), (1e308 * 10, 1e308, False)],
)
def test_floating_point_numbers_may_differ_by_the_tolerance(found, expected, is_same):
    assert same(encoded(found), encoded(expected), tolerance=1e-9) is is_same


def test_a_number_that_is_none_is_only_itself():
    nan = encoded(math.nan)
    assert not same(nan, 1.0, tolerance=1e9)
    assert not same(nan, encoded(math.inf))


def test_without_kinds_numbers_are_as_in_python_and_switches_are_not():
    assert same(12.0, 12, kinds=False)
    assert same(12, 12.0, kinds=False)
    assert not same(True, 1, kinds=False)
    assert not same(1.5, 1, kinds=False)
    assert not same(10**400, 1.0, kinds=False)


def test_no_tolerance_of_floating_point_numbers_makes_another_whole_number_right():
    """A relative 1e-9 of a thousand million is 1."""
    assert not same(1000000000.5, 1000000000, tolerance=1e-9, kinds=False)
    assert not same([1e17 + 32], [10**17], tolerance=1e-9, kinds=False)
    assert same(1000000000.5, 1000000000.0, tolerance=1e-9)
    assert same(2.0000001, 2, tolerance=1e-9, kinds=False, of_whole=1e-6)  # where the test itself allows it


@pytest.mark.parametrize(
    ("found", "expected", "is_same"),
    [
        ("3\n", "3", True),
        ("3 \n\n\n", "3\n", True),
        ("3 4", "3\n4", False),
        (" 3", "3", True),
        ("", "3", False),
        ("3.0", "3", False),
        ("0.33333333333", "0.333333333334", True),
        ("nan", "0.5", False),
        ("inf", "0.5", False),
        ("0_5.0", "5.0", False),
        ("PASSED 6", "6", False),
    ],
)
def test_outputs(found, expected, is_same):
    assert same_output(found, expected, tolerance=1e-9) is is_same


def test_what_is_no_value_is_not_told():
    for value in (object(), iter([]), len, type):
        with pytest.raises(TypeError, match="no plain value"):
            encoded([value])
