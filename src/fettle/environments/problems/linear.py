"""Linear equations in one unknown."""

from fractions import Fraction
from random import Random

from fettle.columns import in_columns
from fettle.environments.problems.problem import Problem, added, formula, nonzero, off, term, written


def linear_equations(rng: Random, difficulty: int) -> Problem:
    """1: one step; 2: two steps; 3: the unknown on both sides; 4: brackets; 5: fractions come out."""
    return (_one_step, _two_steps, _both_sides, _brackets, _fractional)[difficulty - 1](rng)


def _one_step(rng: Random) -> Problem:
    b, root = nonzero(rng, 40), rng.randint(1, 59)
    return _moved(rng, 1, b, 0, root + b)


def _two_steps(rng: Random) -> Problem:
    a, b, root = rng.randint(2, 9), nonzero(rng, 20), rng.randint(1, 15)
    return _moved(rng, a, b, 0, a * root + b)


def _both_sides(rng: Random) -> Problem:
    root, c, b = nonzero(rng, 12), nonzero(rng, 9), nonzero(rng, 20)
    a = rng.choice([factor for factor in range(-9, 10) if factor not in (0, c)])
    return _moved(rng, a, b, c, (a - c) * root + b)


def _brackets(rng: Random) -> Problem:
    root, a, c, inner = nonzero(rng, 12), rng.randint(2, 9), nonzero(rng, 9), nonzero(rng, 9)
    a = a + 1 if a == c else a
    d = (a - c) * root + a * inner
    left = f"{a}({added('x', str(inner))})"
    return _moved(rng, a, a * inner, c, d, left=left)


def _fractional(rng: Random) -> Problem:
    c, b = nonzero(rng, 9), nonzero(rng, 20)
    a = rng.choice([factor for factor in range(-12, 13) if factor and abs(factor - c) > 1])
    d = rng.choice([value for value in range(-30, 31) if value != b and (value - b) % (a - c)])
    return _moved(rng, a, b, c, d)


def _moved(rng: Random, a: int, b: int, c: int, d: int, *, left: str = "") -> Problem:
    """``ax + b = cx + d``, solved by moving terms; the mistake moves one without turning its sign, or miscounts."""
    plain_left = added(term(a), str(b))
    right = added(term(c), str(d)) if c else str(d)
    equation = f"{left or plain_left} = {right}"
    opened = [f"{plain_left} = {right}"] if left else []
    moved, worth = rng.choice(((b, d + b), (-b, int(off(rng, d - b)))))
    value, wrong = Fraction(d - b, a - c), Fraction(worth, a - c)
    return Problem(
        f"Solve for x: {equation}",
        formula(equation),
        written(value),
        "\n".join([*opened, *_steps(a - c, d, -b, d - b, value)]),
        written(wrong),
        "\n".join([*opened, *_steps(a - c, d, moved, worth, wrong)]),
    )


def _steps(factor: int, right: int, moved: int, worth: int, value: Fraction) -> list[str]:
    """From ``moved`` on the right side on; its sum is worked in columns, and said to be ``worth``."""
    lines = [f"{term(factor)} = {added(str(right), str(moved))}", *in_columns([right, moved], worth)]
    return lines if factor == 1 else [*lines, f"x = {worth} / {factor} = {written(value)}"]
