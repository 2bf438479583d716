"""Comparison: what came out of a program against what should have. Nothing is evaluated, and types count."""

import json
import math
import re
from functools import partial
from typing import Any

from pydantic import JsonValue

DECIMAL = re.compile(r"[+-]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+)([eE][+-]?[0-9]{1,3})?")
LONGEST_DECIMAL = 400  # characters
UNORDERED = ("set", "dict")


def same(
    found: JsonValue, expected: JsonValue, *, tolerance: float = 0.0, kinds: bool = True, of_whole: float = 0.0
) -> bool:
    """Whether two values, as ``code_inside.encoded`` tells them, are the same.

    Floating-point numbers may differ by ``tolerance``, absolute or relative. Without ``kinds`` a whole number and a
    floating-point one may be the same, as they are in Python, and where a whole one is expected another may differ by
    ``of_whole``; a switch is never a number.

    >>> same([1, 2.0], [1, 2.0]), same(1, True), same(2.0, 2), same(2.0, 2, kinds=False)
    (True, False, False, True)
    """
    alike = partial(same, tolerance=tolerance, kinds=kinds, of_whole=of_whole)
    if isinstance(expected, dict) and isinstance(found, dict):
        return found.keys() == expected.keys() and all(
            alike(_ordered(name, found[name]), _ordered(name, value)) for name, value in expected.items()
        )
    if isinstance(expected, list) and isinstance(found, list):
        return len(found) == len(expected) and all(map(alike, found, expected))
    numbers = _is_number(found) and _is_number(expected)
    if numbers and (isinstance(found, float) or isinstance(expected, float)):
        allowed = tolerance if isinstance(expected, float) else of_whole
        return (not kinds or type(found) is type(expected)) and _near(found, expected, allowed)
    return type(found) is type(expected) and found == expected


def same_output(found: str, expected: str, *, tolerance: float = 0.0) -> bool:
    r"""Whether two outputs are the same, but for white space at the ends of lines and empty lines at the end.

    Where a decimal with a point is expected, another may stand that differs by ``tolerance``, absolute or relative.

    >>> same_output("3 \n0.50001\n", "3\n0.5", tolerance=1e-3), same_output("3 1", "3\n1")
    (True, False)
    """
    lines, wanted = _lines(found), _lines(expected)
    return len(lines) == len(wanted) and all(
        one == other or _same_words(one.split(), other.split(), tolerance)
        for one, other in zip(lines, wanted, strict=True)
    )


def _ordered(name: str, value: JsonValue) -> JsonValue:
    """What has no order, in one order."""
    if name in UNORDERED and isinstance(value, list):
        return sorted(value, key=lambda item: json.dumps(item, sort_keys=True))
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _near(one: Any, other: Any, tolerance: float) -> bool:
    try:
        return one == other or math.isclose(one, other, rel_tol=tolerance, abs_tol=tolerance)
    except OverflowError:  # a whole number beyond all floating-point ones
        return False


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().split("\n")]


def _same_words(found: list[str], expected: list[str], tolerance: float) -> bool:
    return len(found) == len(expected) and all(
        one == other or ("." in other and _near_decimals(one, other, tolerance))
        for one, other in zip(found, expected, strict=True)
    )


def _near_decimals(one: str, other: str, tolerance: float) -> bool:
    plain = all(len(word) <= LONGEST_DECIMAL and DECIMAL.fullmatch(word) for word in (one, other))
    return plain and _near(float(one), float(other), tolerance)
