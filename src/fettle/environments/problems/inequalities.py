"""Linear inequalities in one unknown."""

from fractions import Fraction
from random import Random

from fettle.environments.problems.problem import Problem, added, formula, nonzero, term, written

SIGNS = ("<", ">", "<=", ">=")
TURNED = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}


def inequalities(rng: Random, difficulty: int) -> Problem:
    """1: one step; 2: two steps; 3: a negative factor; 4: the unknown on both sides; 5: between two bounds."""
    sign, b = rng.choice(SIGNS), nonzero(rng, 20)
    if difficulty == 5:
        return _between(rng, b)
    root = nonzero(rng, 12)
    a = (1, rng.randint(2, 9), -rng.randint(2, 9), nonzero(rng, 9))[difficulty - 1]
    c = rng.choice([factor for factor in range(-9, 10) if factor not in (0, a)]) if difficulty == 4 else 0
    d = (a - c) * root + b
    inequality = f"{added(term(a), str(b))} {sign} {added(term(c), str(d)) if c else d}"
    moved = f"{term(a - c)} {sign} {added(str(d), str(-b))} = {d - b}"
    right = TURNED[sign] if a < c else sign
    wrong_root = Fraction(d - b, a - c) if a < c else Fraction(d + b, a - c)
    return _problem(inequality, moved, f"x {right} {root}", f"x {sign} {written(wrong_root)}")


def _between(rng: Random, b: int) -> Problem:
    a, low = rng.randint(2, 9), rng.randint(-12, 8)
    high = low + rng.randint(2, 9)
    first, second = rng.choice(("<", "<=")), rng.choice(("<", "<="))
    inequality = f"{a * low + b} {first} {added(term(a), str(b))} {second} {a * high + b}"
    moved = f"{a * low} {first} {term(a)} {second} {a * high}"
    swapped = {"<": "<=", "<=": "<"}
    return _problem(
        inequality, moved, f"{low} {first} x {second} {high}", f"{low} {swapped[first]} x {second} {high + 1}"
    )


def _problem(inequality: str, moved: str, answer: str, wrong: str) -> Problem:
    question = f"Solve for x: {inequality}. Answer with an inequality."
    return Problem(question, formula(inequality), answer, f"{moved}\n{answer}", wrong, f"{moved}\n{wrong}")
