"""Sums of whole numbers, worked column by column as on paper: what a small model can learn to do."""

from collections.abc import Sequence

COLUMNS = ("ones", "tens", "hundreds", "thousands")


def columns(terms: Sequence[int]) -> list[list[int]]:
    """The digits of each column, each with its number's sign; ones first.

    >>> columns([42, -25])
    [[2, -5], [4, -2]]
    """
    width = max(len(str(abs(term))) for term in terms)
    return [[(abs(term) // 10**place % 10) * _sign(term) for term in terms] for place in range(width)]


def in_columns(terms: Sequence[int], total: int) -> list[str]:
    """The lines of a sum whose columns are right, and whose ``total`` is what is said of it.

    >>> in_columns([42, -25], 17)
    ['tens 4 - 2 = 2', 'ones 2 - 5 = -3', '20 - 3 = 17']
    """
    found = columns(terms)
    if len(found) == 1:
        return [f"ones {_joined(terms, terms)} = {total}"]
    lines = [f"{_name(place)} {_joined(column, terms)} = {sum(column)}" for place, column in enumerate(found)]
    parts = [sum(column) * 10**place for place, column in enumerate(found)][::-1]
    return [*reversed(lines), f"{_joined(parts, parts)} = {total}"]


def _joined(numbers: Sequence[int], signs_of: Sequence[int]) -> str:
    """As in ``4 - 0 + 2``: a digit keeps its number's sign even where it is 0."""
    signs = ["-" if _sign(number) < 0 else "+" for number in signs_of]
    rest = (f" {sign} {abs(number)}" for sign, number in zip(signs[1:], numbers[1:], strict=True))
    return str(numbers[0]) + "".join(rest)


def _sign(number: int) -> int:
    return -1 if number < 0 else 1


def _name(place: int) -> str:
    return COLUMNS[place] if place < len(COLUMNS) else f"10^{place}"
