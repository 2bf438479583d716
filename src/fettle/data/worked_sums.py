"""Worked solutions to sums, right or with a slip of the kind that people make."""

import re
from collections.abc import Iterable, Iterator, Sequence
from random import Random

from fettle.columns import columns, in_columns
from fettle.data.conversations import Conversation
from fettle.errors import DataError
from fettle.randomness import key
from fettle.types import Message, Task

SUM = re.compile(r"-?[0-9]+( [+-] -?[0-9]+)+")


def solution(expression: str, *, slip: bool, rng: Random) -> str:
    """The sum worked column by column, then put together, then the answer in its tags.

    With a ``slip`` the answer is wrong, as people get it wrong: a carry or a borrow is forgotten, or a sign misread.

    >>> print(solution("42 - 25", slip=False, rng=Random(0)))
    tens 4 - 2 = 2
    ones 2 - 5 = -3
    20 - 3 = 17
    <answer>17</answer>

    Raises:
        DataError: ``expression`` is not a sum of whole numbers like ``12 + 34 - 5``.
    """
    terms = _terms(expression)
    if not slip:
        return _written(terms, sum(terms))
    forgettable = _forgettable(terms)
    if forgettable and rng.random() < 0.5:
        return _written(terms, sum(terms) - rng.choice(forgettable))
    misread = _with_a_sign_misread(terms, rng)
    return _written(misread, sum(misread)) if misread else _written(terms, sum(terms) + rng.choice((-1, 1)))


def demonstrations(tasks: Iterable[Task], *, slips: float, seed: int) -> Iterator[Conversation]:
    """Each task's prompt and a solution of it; about a share ``slips`` of them is wrong.

    Raises:
        DataError: a task holds no ``expression``, or one that is not a sum of whole numbers.
    """
    for index, task in enumerate(tasks):
        rng = Random(key(seed, "solution", index))
        text = solution(expression_of(task), slip=rng.random() < slips, rng=rng)
        yield (*task.prompt, Message("assistant", text))


def expression_of(task: Task) -> str:
    """The sum that a task asks for.

    Raises:
        DataError: it holds none.
    """
    expression = task.data.get("expression")
    if not isinstance(expression, str):
        raise DataError(f"a task of {task.source} holds no expression to work out: use arithmetic or chain_sum tasks")
    return expression


def _terms(expression: str) -> list[int]:
    """The numbers that are added; a subtracted one is negative."""
    if not SUM.fullmatch(expression):
        raise DataError(f"cannot work out {expression!r}: only sums of whole numbers, like 12 + 34 - 5, can be")
    first, *rest = expression.split(" ")
    return [
        int(first),
        *(int(term) if sign == "+" else -int(term) for sign, term in zip(rest[::2], rest[1::2], strict=True)),
    ]


def _written(terms: Sequence[int], total: int) -> str:
    return "\n".join([*in_columns(terms, total), f"<answer>{total}</answer>"])


def _forgettable(terms: Sequence[int]) -> list[int]:
    """For each column but the highest that has something to carry or borrow, what it is worth."""
    carried = [sum(column) // 10 * 10 ** (place + 1) for place, column in enumerate(columns(terms)[:-1])]
    return [worth for worth in carried if worth]


def _with_a_sign_misread(terms: Sequence[int], rng: Random) -> list[int]:
    """One of the numbers after the first, with the other sign; none where all of those are zero."""
    places = [place for place, term in enumerate(terms) if place and term]
    if not places:
        return []
    chosen = rng.choice(places)
    return [-term if place == chosen else term for place, term in enumerate(terms)]
