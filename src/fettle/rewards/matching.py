"""Matching: an answer against the one the task holds. Exact, and with nothing evaluated."""

import re
from fractions import Fraction

from fettle.errors import DataError
from fettle.types import Task

LONGEST_NUMBER = 200  # characters; Python's own limit on reading digits would raise far above it
NUMBER = re.compile(r"[+-]?([0-9]{1,3}(,[0-9]{3})+|[0-9]+)?(\.[0-9]*)?")
FRACTION = re.compile(r"[+-]?[0-9]+/0*[1-9][0-9]*")


def exact_match(answer: str, task: Task) -> float:
    """1 where the answer is the task's, letter for letter, but for white space around it.

    Raises:
        DataError: the task's answer is neither a text nor a number.
    """
    return float(answer.strip() == expected(task))


def number(answer: str, task: Task) -> float:
    """1 where the answer is the task's number: ``1,000.50``, ``1000.5`` and ``2001/2`` are the same.

    Raises:
        DataError: the task's answer is not such a number.
    """
    right = quantity(expected(task))
    if right is None:
        raise DataError(f"the answer {expected(task)!r} is not a number like -3, 1,000.5 or 3/4: write it as one")
    return float(quantity(answer) == right)


def expected(task: Task) -> str:
    """The task's answer as a text.

    Raises:
        DataError: it is neither a text nor a number.
    """
    answer = task.data.get("answer")
    if isinstance(answer, bool) or not isinstance(answer, str | int | float):
        raise DataError(f"the answer is {answer!r}: it must be a text or a number to be matched")
    return str(answer).strip()


def quantity(text: str) -> Fraction | None:
    """The exact value of a plain decimal, with or without thousands separators, or of a fraction.

    >>> quantity("-1,234.50"), quantity("3/4"), quantity("1 2 3")
    (Fraction(-2469, 2), Fraction(3, 4), None)
    """
    text = text.strip()
    if len(text) > LONGEST_NUMBER or not any(map(str.isdigit, text)):
        return None
    if FRACTION.fullmatch(text) or NUMBER.fullmatch(text):
        return Fraction(text.replace(",", ""))
    return None
