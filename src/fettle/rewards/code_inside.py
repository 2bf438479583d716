"""What stands around an answer in the sandbox: it evaluates calls, and says what came out as JSON, told apart by type.

This file is also run there, as text: it needs nothing but what Python brings.
"""

import math
import sys
import types
from collections.abc import Callable, Sequence
from typing import Any


def evaluator(sources: Sequence[str], named: Sequence[str]) -> Callable[[str], Any]:
    """What evaluates an expression after the sources, which share their names; all ``named`` are the last of them."""
    module = types.ModuleType("solution")
    sys.modules["solution"] = module
    names = module.__dict__
    for source in sources:
        exec(compile(source, "solution.py", "exec"), names)
    for name in named:
        names[name] = names[named[-1]]
    return lambda expression: encoded(eval(expression, names))


def encoded(value: object) -> Any:
    """The value as JSON. Lists, texts, whole numbers, switches and None are what they are; others are named.

    >>> encoded((1, {2: "b"}))
    {'tuple': [1, {'dict': [[2, 'b']]}]}

    Raises:
        TypeError: it is, or holds, something that is not data.
    """
    if value is None or isinstance(value, bool):
        return value
    for kind, code in _CODES.items():
        if isinstance(value, kind):
            return code(value)
    raise TypeError(f"a {type(value).__name__} was returned, which is no plain value")


def _float(value: float) -> Any:
    return float(value) if math.isfinite(value) else {"float": repr(float(value))}


def _items(values: Any) -> list[Any]:
    return [encoded(value) for value in values]


_CODES: dict[type, Callable[[Any], Any]] = {
    int: int,
    float: _float,
    str: str,
    list: _items,
    tuple: lambda value: {"tuple": _items(value)},
    set: lambda value: {"set": _items(value)},
    frozenset: lambda value: {"set": _items(value)},
    dict: lambda value: {"dict": [[encoded(key), encoded(held)] for key, held in value.items()]},
    bytes: lambda value: {"bytes": value.hex()},
    complex: lambda value: {"complex": [_float(value.real), _float(value.imag)]},
}
