"""The calculator: exact, bounded, and never a way to run anything."""

import ast
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fettle.environments.tools import ToolMistake, calculator

TOO_DEEP = f"{'(' * 60!r} is no expression that can be worked out"
"""What some Pythons say of more brackets than they read."""


def told(expression: str) -> str:
    try:
        return calculator(expression)
    except ToolMistake as mistake:
        return str(mistake)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("sqrt(16)", "4"),
        ("sqrt(2)", "1.41421356237"),
        ("sqrt(1/4)", "0.5"),
        ("48213 * 9071 - 337", "437339786"),
        ("0.1 + 0.2", "0.3"),
        ("12345678901234567890.25 * 4", "49382715604938271561"),
        ("1/3", "1/3 = 0.333333333333"),
        ("-7 / 4", "-1.75"),
        ("-7 // 2", "-4"),
        ("-7 % 3", "2"),
        ("2 ** 10", "1024"),
        ("2 ** -2", "0.25"),
        ("(-1) ** 1000000000000", "1"),
        ("0 ** 4", "0"),
        ("0 ** 0", "1"),
        ("sin(pi / 2)", "1"),
        ("factorial(20)", "2432902008176640000"),
        ("6 × 7 − 2 ÷ 4", "41.5"),
        ("max(3, 2.5, 7/2)", "3.5"),
        ("gcd(12, 18) + lcm(4, 6)", "18"),
        ("round(2.71828, 2)", "2.72"),
        ("  3 ", "3"),
    ],
)
def test_values(expression, value):
    assert calculator(expression) == value


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("9**9**9", "too large"),
        ("10**5000", "too large"),
        ("(1/3)**9999", "too large"),
        ("1e999999999", "too large"),
        ("exp(10000)", "too large"),
        ("factorial(100000)", "from 0 to"),
        ("1/0", "divided by zero"),
        ("0**-1", "divided by zero"),
        ("(-8)**0.5", "no real number"),
        ("sqrt(-1)", "no real square root"),
        ("2^3", "write a power"),
        ("1,234 + 1", "without commas"),
        ("__import__('os').system('true')", "is none of"),
        ("().__class__", "is none of"),
        ("[1][0]", "is none of"),
        ("lambda: 1", "is none of"),
        ("x + 1", "is none of"),
        ("sqrt", "is none of"),
        ("sqrt()", "number of arguments"),
        ("sqrt(x=4)", "is none of"),
        ("gcd(1.5, 2)", "number of arguments"),
        ("True + 1", "no numbers"),
        ("'a' * 100", "is none of"),
        ("1j", "is none of"),
        ("1 +", "no expression"),
        ("", "no expression"),
        ("1\x00", "no expression"),
        ("1" * 501, "at most 500"),
        ("(" * 249 + "1" + ")" * 249, ""),
        ("-" * 499 + "1", ""),
    ],
)
def test_what_cannot_be_worked_out_is_told_in_a_sentence(expression, why):
    said = told(expression)
    assert why in said if why else said in ("1", "-1", "the expression is nested too deeply", TOO_DEEP)


def sums(children):
    return st.tuples(children, st.sampled_from("+-*"), children).map(
        lambda parts: f"({parts[0]} {parts[1]} {parts[2]})"
    )


@given(st.recursive(st.integers(0, 10**12).map(str), sums, max_leaves=12))
def test_whole_numbers_are_worked_out_exactly(expression):
    assert calculator(expression) == str(eval(compile(ast.parse(expression, mode="eval"), "", "eval")))


@given(st.fractions(), st.fractions(max_denominator=1000))
def test_fractions_are_kept_exactly(left, right):
    told = calculator(f"({left.numerator}/{left.denominator}) - ({right.numerator}/{right.denominator})")
    assert Fraction(told.split(" = ")[0]) == left - right


@given(st.text(max_size=60) | st.text("0123456789+-*/%().,e ", max_size=60))
def test_any_text_is_a_value_or_a_mistake(text):
    assert told(text)
