"""A problem, and how its parts are written."""

from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from random import Random


@dataclass(frozen=True, slots=True)
class Problem:
    """What is asked, and what the policy never sees of it."""

    question: str
    statement: str
    """The problem as formulas, for a solver: ``3*x + 5 = 20``, several of them with a semicolon between."""
    answer: str
    work: str
    """How it is solved, line by line, without the answer itself."""
    wrong_answer: str
    wrong_work: str
    """As it is solved by someone who makes a mistake."""


def written(value: Fraction | int) -> str:
    """A whole number or a fraction in lowest terms.

    >>> written(Fraction(-6, 4)), written(Fraction(4, 2))
    ('-3/2', '2')
    """
    return str(Fraction(value))


def term(factor: int, name: str = "x") -> str:
    """A factor and a name.

    >>> term(1), term(-1), term(-3, "y")
    ('x', '-x', '-3y')
    """
    return f"{'-' if factor == -1 else '' if factor == 1 else factor}{name}"


def added(first: str, *others: str) -> str:
    """Terms one after another, those that begin with a minus taken away, and zeros left out.

    >>> added("3x", "-5", "0")
    '3x - 5'
    """
    text = first
    for other in others:
        if other != "0":
            text += f" - {other[1:]}" if other.startswith("-") else f" + {other}"
    return text


def formula(text: str) -> str:
    """As a solver reads it: every product has its sign.

    >>> formula("3x - 2(y + 1) = 5")
    '3*x - 2*(y + 1) = 5'
    """
    found = text[:1]
    for before, sign in pairwise(text):
        between = before.isdigit() and (sign.isalpha() or sign == "(")
        found += f"*{sign}" if between else sign
    return found


def nonzero(rng: Random, most: int, *, least: int | None = None) -> int:
    """A whole number from ``least`` (``-most`` where that is left out) to ``most``, but for 0."""
    return rng.choice([value for value in range(-most if least is None else least, most + 1) if value])


def off(rng: Random, value: Fraction | int) -> Fraction:
    """A value that is missed by a little, as in a slip of the pen."""
    return Fraction(value) + rng.choice((-2, -1, 1, 2))
