"""Scorers of reasoning-gym that run an answer as Python code, or can be kept busy. Only a sandbox may import this."""

import sys
import types
from typing import Any

from sympy import Symbol, diff, parse_expr, simplify  # type: ignore[import-untyped]

# It brings matplotlib, which wants a folder to write to, and there is none here. What is scored here does without it.
sys.modules.setdefault("cellpylib", types.ModuleType("cellpylib"))

from reasoning_gym.factory import create_dataset  # noqa: E402  only now

TRIED = "x**2*exp(2*x) + sin(3*x)*cos(x)/2 + log(x + 1) + sqrt(x) + atan(x) + 3**4 - 1"
"""An expression that is worked with when this is imported: sympy loads parts of itself as it goes, and once there are
walls nothing can be loaded any more."""

simplify(diff(parse_expr(TRIED), Symbol("x")) - parse_expr("1 + x"))


def score(task: str, settings: dict[str, Any], answer: str, entry: dict[str, Any]) -> float:
    """What the scorer of a dataset pays for an answer to one of its items."""
    return float(create_dataset(task, seed=0, size=1, **settings).score_answer(answer, entry))
