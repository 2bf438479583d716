"""Arithmetic: from sums of two numbers to fractions."""

from fractions import Fraction
from random import Random

from fettle.environments.problems.problem import Problem, off, written


def arithmetic(rng: Random, difficulty: int) -> Problem:
    """1: a sum or a difference; 2: three terms; 3: a product and a term; 4: brackets; 5: fractions."""
    draw = (_two_terms, _three_terms, _product, _brackets, _fractions)[difficulty - 1]
    expression, lines, value = draw(rng)
    wrong = off(rng, value)
    return Problem(
        f"Work out {expression}.",
        f"{expression} = x",
        written(value),
        "\n".join([*lines[:-1], f"{lines[-1]} = {written(value)}"]),
        written(wrong),
        "\n".join([*lines[:-1], f"{lines[-1]} = {written(wrong)}"]),
    )


Drawn = tuple[str, list[str], Fraction]
"""An expression, the steps of working it out (the last lacks its value), and that value."""


def _two_terms(rng: Random) -> Drawn:
    a, b, sign = rng.randint(2, 99), rng.randint(2, 99), rng.choice("+-")
    return f"{a} {sign} {b}", [f"{a} {sign} {b}"], Fraction(a + b if sign == "+" else a - b)


def _three_terms(rng: Random) -> Drawn:
    a, b, c = (rng.randint(10, 99) for _ in range(3))
    first, second = rng.choice("+-"), rng.choice("+-")
    so_far = a + b if first == "+" else a - b
    value = so_far + c if second == "+" else so_far - c
    lines = [f"{a} {first} {b} = {so_far}", f"{so_far} {second} {c}"]
    return f"{a} {first} {b} {second} {c}", lines, Fraction(value)


def _product(rng: Random) -> Drawn:
    a, b, c, sign = rng.randint(3, 19), rng.randint(3, 9), rng.randint(10, 99), rng.choice("+-")
    value = a * b + c if sign == "+" else a * b - c
    return f"{a} * {b} {sign} {c}", [f"{a} * {b} = {a * b}", f"{a * b} {sign} {c}"], Fraction(value)


def _brackets(rng: Random) -> Drawn:
    a, b, d = (rng.randint(10, 49) for _ in range(3))
    c, inner, outer = rng.randint(3, 9), rng.choice("+-"), rng.choice("+-")
    inside = a + b if inner == "+" else a - b
    value = inside * c + d if outer == "+" else inside * c - d
    lines = [f"{a} {inner} {b} = {inside}", f"{inside} * {c} = {inside * c}", f"{inside * c} {outer} {d}"]
    return f"({a} {inner} {b}) * {c} {outer} {d}", lines, Fraction(value)


def _fractions(rng: Random) -> Drawn:
    below, other_below = rng.sample(range(2, 13), 2)
    above, other_above = rng.randint(1, below - 1), rng.randint(1, other_below - 1)
    sign = rng.choice("+-")
    one, other = Fraction(above, below), Fraction(other_above, other_below)
    value = one + other if sign == "+" else one - other
    shared = below * other_below
    left, right = above * other_below, other_above * below
    lines = [
        f"{above}/{below} = {left}/{shared} and {other_above}/{other_below} = {right}/{shared}",
        f"{left}/{shared} {sign} {right}/{shared}",
    ]
    return f"{above}/{below} {sign} {other_above}/{other_below}", lines, value
