"""Asserts become calls and values where that says the same; what cannot be is left, and never guessed at."""

import ast

import pytest

from fettle.environments.code_asserts import called, converted
from fettle.rewards.code_inside import encoded

CONVERTED = [
    ("assert f(1) == 2", "f(1)", 2, 0.0),
    ("assert 2 == f(1)", "f(1)", 2, 0.0),
    ("assert (f([1], k='a')) == (1, 'b'), 'a message'", "f([1], k='a')", (1, "b"), 0.0),
    ("assert set(f(1)) == set([1, 2])", "set(f(1))", {1, 2}, 0.0),
    ("assert f(f('a' * 3)) == 'b' * 3", "f(f('a' * 3))", "bbb", 0.0),
    ("assert f(1) == {'a': [-1, 2.5], 3: None}", "f(1)", {"a": [-1, 2.5], 3: None}, 0.0),
    ("assert f(1) == 10 ** 9 + 7", "f(1)", 10**9 + 7, 0.0),
    ("assert f(1) is None", "f(1)", None, 0.0),
    ("assert f(1) is True", "f(1)", True, 0.0),
    ("assert abs(f(1) - 0.5) < 1e-6", "f(1)", 0.5, 1e-6),
    ("assert math.fabs(2 - f(1)) <= 0.001", "f(1)", 2, 0.001),
    ("assert math.isclose(f(1), 0.25, rel_tol=0.01)", "f(1)", 0.25, 0.01),
    ("assert math.isclose(0.25, f(1))", "f(1)", 0.25, 1e-9),
    ("assert (f(1), 3) == (2, 3)", "(f(1), 3)", (2, 3), 0.0),
    ("assert f(1)[0].size() == 2", "f(1)[0].size()", 2, 0.0),
    ("assert f(1)(2) == 3", "f(1)(2)", 3, 0.0),
    ("assert -f(1) == 3", "-f(1)", 3, 0.0),
    ("assert f(1) + f(2) == 3", "f(1) + f(2)", 3, 0.0),
    ("assert round(f(1), 2) == 0.25", "round(f(1), 2)", 0.25, 0.0),
    ("assert ', '.join(f(1)) == 'a, b'", "', '.join(f(1))", "a, b", 0.0),
    ("assert math.floor(f(1)) == 2", "math.floor(f(1))", 2, 0.0),
    ("assert [round(x, 2) for x in f(1)] == [0.5]", "[round(x, 2) for x in f(1)]", [0.5], 0.0),
]

MET = [
    "assert f(1) - 2 == 0",
    "assert f(1) + 1 == 3",
    "assert 'a' + f(1) == 'ab'",
    "assert f(1) * 0 == 0",
    "assert f(1).__eq__(2)",
    "assert f(1).startswith('ab')",
    "assert f(1).union({1, 2}) == {1, 2}",
    "assert set(f(1)) - {1, 2} == set()",
    "assert max(f(1), 2) == 2",
    "assert 'ab'.startswith(f(1)) == True",
    "assert {**f(1), 'a': 1} == {'a': 1}",
    "assert dict(f(1), a=1) == {'a': 1}",
    "assert math.isclose(f(1) - 2, 0)",
    "assert abs(f(1) - 2 - 0) < 0.1",
    "assert (lambda x: 2)(f(1)) == 2",
    "assert [x - 2 for x in f(1)] == [0]",
    "assert f'{f(1)} is 2' == '2 is 2'",
]
"""What an answer returns would meet what is expected, and could say of it whatever it likes: an object whose
difference to anything is 0 would be right each time."""

LEFT = [
    "assert f(1) == f(2)",
    "assert f(1) == other",
    "assert f(1) != 2",
    "assert f(1) > 2",
    "assert 1 < f(1) < 3",
    "assert f(1) == 2 and f(2) == 3",
    "assert (f(1) == 2) == True",
    "assert f(1) in (1, 2)",
    "assert len(f(1))",
    "assert True == True",
    "assert f(1) == 10 ** 10 ** 10",
    "assert f(1) == 'a' * 10 ** 9",
    "assert f(1) == [0] * 10 ** 9",
    "assert f(1) == 1 / 0",
    "assert f(1) == open('/etc/passwd')",
    "assert abs(f(1) - 0.5) < tolerance",
    "assert abs(f(1) - 0.5) < 5",
    "for i in range(3):\n    assert f(i) == i",
    "x = f(1)",
    "import random",
]


@pytest.mark.parametrize(("statement", "expression", "expected", "tolerance"), CONVERTED)
def test_what_compares_with_something_known_is_converted(statement, expression, expected, tolerance):
    found = converted(ast.parse(statement).body, ["f"])
    assert found.left == ()
    [test] = found.tests
    assert (test.expression, test.expected, test.tolerance) == (expression, encoded(expected), tolerance)
    assert not test.truth


@pytest.mark.parametrize("statement", [*LEFT, *MET])
def test_what_does_not_is_left(statement):
    found = converted(ast.parse(statement).body, ["f"])
    assert found.tests == ()
    assert found.left == (ast.unparse(ast.parse(statement)),)


def test_bare_claims_ask_for_truth():
    found = converted(ast.parse("assert f(1)\nassert not f(2)").body, ["f"])
    assert [(test.expression, test.expected, test.truth) for test in found.tests] == [
        ("f(1)", True, True),
        ("f(2)", False, True),
    ]


def test_what_says_nothing_is_passed_over():
    found = converted(ast.parse("assert True, 'fine'\n'a text'\npass").body, ["f"])
    assert (found.tests, found.left) == ((), ())


def test_the_names_that_are_called():
    assert called(ast.parse("assert set(f(1)) == g.h(f(2))").body) == ["set", "f"]
