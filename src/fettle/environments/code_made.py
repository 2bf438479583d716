"""Problems that are made up: a few small steps put together at random, with a solution and inputs drawn for it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from types import MappingProxyType
from typing import Any, Literal

from fettle.config import MadeProblems
from fettle.environments.code_files import Asked
from fettle.rewards.code_inside import encoded
from fettle.rewards.coding import CallTest, Problem

Kind = Literal["number", "list", "text"]

CALLED: Mapping[Kind, str] = MappingProxyType(
    {"number": "a whole number", "list": "a list of whole numbers", "text": "a text"}
)
WORDS = ("a", "Bee", "sea", "Dune", "elm", "far", "Gnu", "oh hi", "under", "Yes", "zoo")
DRAWS = 100
"""Tries at a problem whose answers say something."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that a function does with ``x``; ``#`` stands for a number."""

    takes: Kind
    gives: Kind
    words: str
    expression: str


STEPS = (
    Step("number", "number", "add #", "x + #"),
    Step("number", "number", "subtract #", "x - #"),
    Step("number", "number", "multiply by #", "x * #"),
    Step("number", "number", "divide by #, rounding down", "x // #"),
    Step("number", "number", "take the remainder by #", "x % #"),
    Step("number", "number", "take # if that is more", "max(x, #)"),
    Step("number", "number", "take # if that is less", "min(x, #)"),
    Step("list", "list", "add # to each", "[v + # for v in x]"),
    Step("list", "list", "multiply each by #", "[v * # for v in x]"),
    Step("list", "list", "keep those above #", "[v for v in x if v > #]"),
    Step("list", "list", "keep those below #", "[v for v in x if v < #]"),
    Step("list", "list", "keep the even ones", "[v for v in x if v % 2 == 0]"),
    Step("list", "list", "keep the odd ones", "[v for v in x if v % 2 == 1]"),
    Step("list", "list", "sort them", "sorted(x)"),
    Step("list", "list", "reverse them", "x[::-1]"),
    Step("list", "list", "keep the first #", "x[:#]"),
    Step("list", "list", "leave out the first #", "x[#:]"),
    Step("list", "number", "take the sum", "sum(x)"),
    Step("list", "number", "take their number", "len(x)"),
    Step("list", "number", "count those above #", "sum(v > # for v in x)"),
    Step("text", "text", "reverse it", "x[::-1]"),
    Step("text", "text", "make it upper case", "x.upper()"),
    Step("text", "text", "make it lower case", "x.lower()"),
    Step("text", "text", "keep the first # characters", "x[:#]"),
    Step("text", "text", "leave out the first # characters", "x[#:]"),
    Step("text", "text", "put dashes for spaces", 'x.replace(" ", "-")'),
    Step("text", "number", "take its length", "len(x)"),
    Step("text", "number", "count its words", "len(x.split())"),
)


def drawn_problem(rng: Random, config: MadeProblems) -> Asked:
    """A function to write, whose outputs differ among themselves and from its inputs."""
    for _ in range(DRAWS):
        kind: Kind = rng.choice(list(CALLED))
        steps = _steps(rng, kind, config)
        inputs = [_input(rng, kind, config.largest) for _ in range(config.tests)]
        outputs = [_output(steps, given) for given in inputs]
        if _telling(inputs, outputs):
            break
    tests = tuple(
        CallTest(expression=f"f({given!r})", expected=encoded(output))
        for given, output in zip(inputs, outputs, strict=True)
    )
    words = ", then ".join(words for words, _ in steps)
    return Asked(
        f"Write f(x) for {CALLED[kind]} x: {words}.",
        Problem(answer=written([expression for _, expression in steps]), named=("f",), hidden=tests),
    )


def written(expressions: Sequence[str]) -> str:
    """The function whose steps are these.

    >>> print(written(["x[::-1]"]))
    def f(x):
        return x[::-1]
    """
    *earlier, last = expressions
    return "".join(["def f(x):\n", *(f"    x = {step}\n" for step in earlier), f"    return {last}"])


def _steps(rng: Random, kind: Kind, config: MadeProblems) -> list[tuple[str, str]]:
    """Words and expressions, each of which takes what the one before gives."""
    found = []
    for _ in range(rng.randint(config.min_steps, config.max_steps)):
        step = rng.choice([step for step in STEPS if step.takes == kind])
        number = str(rng.randint(2, config.largest))
        found.append((step.words.replace("#", number), step.expression.replace("#", number)))
        kind = step.gives
    return found


def _input(rng: Random, kind: Kind, largest: int) -> Any:
    if kind == "text":
        return " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, 4)))
    if kind == "number":
        return rng.randint(-largest, 3 * largest)
    return [rng.randint(-largest // 2, 2 * largest) for _ in range(rng.randint(0, 8))]


def _output(steps: Sequence[tuple[str, str]], given: Any) -> Any:
    for _, expression in steps:
        given = _function(expression)(given)
    return given


@lru_cache(maxsize=4096)
def _function(expression: str) -> Callable[[Any], Any]:
    """A row of the table above, with its number; nobody else's words get here."""
    made: Callable[[Any], Any] = eval(f"lambda x: {expression}")
    return made


def _telling(inputs: Sequence[Any], outputs: Sequence[Any]) -> bool:
    different = len({repr(output) for output in outputs})
    return different >= min(3, len(outputs)) and list(inputs) != list(outputs)
