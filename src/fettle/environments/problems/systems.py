"""Systems of linear equations."""

from random import Random

from fettle.environments.problems.problem import Problem, added, formula, nonzero, off, term

NAMES = "xyz"
LARGEST = (1, 3, 6, 9, 5)
"""The largest factor by difficulty; at 5 there are three unknowns."""


def systems(rng: Random, difficulty: int) -> Problem:
    """1: a sum and a difference; 2 to 4: two unknowns with growing factors; 5: three unknowns."""
    size = 3 if difficulty == 5 else 2
    roots = [rng.randint(1, 20) if difficulty == 1 else nonzero(rng, 9) for _ in range(size)]
    rows = [[1, 1], [1, -1]] if difficulty == 1 else _independent(rng, size, LARGEST[difficulty - 1])
    totals = [sum(factor * root for factor, root in zip(row, roots, strict=True)) for row in rows]
    equations = [
        f"{added(*(term(factor, name) for factor, name in zip(row, NAMES, strict=False)))} = {total}"
        for row, total in zip(rows, totals, strict=True)
    ]
    wrong = [*roots[:-1], int(off(rng, roots[-1]))]
    form = " and ".join([", ".join(f"{name} = ..." for name in NAMES[: size - 1]), f"{NAMES[size - 1]} = ..."])
    return Problem(
        f"Solve: {'; '.join(equations)}. Answer with {form}.",
        "; ".join(formula(equation) for equation in equations),
        _values(roots),
        _elimination(rows, totals, roots),
        _values(wrong),
        _elimination(rows, totals, wrong),
    )


def _independent(rng: Random, size: int, largest: int) -> list[list[int]]:
    """Rows of factors that are not 0 and have one solution."""
    while True:
        rows = [[nonzero(rng, largest) for _ in range(size)] for _ in range(size)]
        if _determinant(rows):
            return rows


def _determinant(rows: list[list[int]]) -> int:
    if len(rows) == 1:
        return rows[0][0]
    minors = ([row[:place] + row[place + 1 :] for row in rows[1:]] for place in range(len(rows)))
    return sum((-1) ** place * rows[0][place] * _determinant(minor) for place, minor in enumerate(minors))


def _values(roots: list[int]) -> str:
    return ", ".join(f"{name} = {root}" for name, root in zip(NAMES, roots, strict=False))


def _elimination(rows: list[list[int]], totals: list[int], roots: list[int]) -> str:
    """Cramer's rule in words: each unknown times the determinant, then the unknown."""
    whole = _determinant(rows)
    lines = []
    for place, root in enumerate(roots):
        replaced = [[*row[:place], total, *row[place + 1 :]] for row, total in zip(rows, totals, strict=True)]
        above = _determinant(replaced)
        lines.append(f"{NAMES[place]} = {above} / {whole} = {root}")
    return "\n".join(lines)
