"""Worked solutions to sums, right or with a slip of the kind that people make."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random

from fettle.data.conversations import Conversation
from fettle.errors import DataError
from fettle.randomness import key
from fettle.types import Message, Task

SUM = re.compile(r"-?[0-9]+( [+-] -?[0-9]+)+")


@dataclass(frozen=True, slots=True)
class Step:
    """One addition or subtraction, worked out: ``left sign right = result``."""

    left: int
    sign: str
    right: int
    result: int

    @property
    def addend(self) -> int:
        """What is added to ``left``: ``right``, or its negative."""
        return self.right if self.sign == "+" else -self.right


def solution(expression: str, *, slip: bool, rng: Random) -> str:
    """The sum worked from left to right, a line for each step, then the answer in its tags.

    With a ``slip`` one step is wrong, the steps after it go on from there, and so the answer is wrong.

    >>> print(solution("12 + 34 - 5", slip=False, rng=Random(0)))
    12 + 34 = 46
    46 - 5 = 41
    <answer>41</answer>

    Raises:
        DataError: ``expression`` is not a sum of whole numbers like ``12 + 34 - 5``.
    """
    steps = _worked(expression)
    return _written(_with_slip(steps, rng) if slip else steps)


def demonstrations(tasks: Iterable[Task], *, slips: float, seed: int) -> Iterator[Conversation]:
    """Each task's prompt and a solution of it; about a share ``slips`` of them is wrong.

    Raises:
        DataError: a task holds no ``expression``, or one that is not a sum of whole numbers.
    """
    for index, task in enumerate(tasks):
        expression = task.data.get("expression")
        if not isinstance(expression, str):
            raise DataError(
                f"a task of {task.source} holds no expression to work out: use arithmetic or chain_sum tasks"
            )
        rng = Random(key(seed, "solution", index))
        text = solution(expression, slip=rng.random() < slips, rng=rng)
        yield (*task.prompt, Message("assistant", text))


def _written(steps: Sequence[Step]) -> str:
    lines = [f"{step.left} {step.sign} {step.right} = {step.result}" for step in steps]
    return "\n".join([*lines, f"<answer>{steps[-1].result}</answer>"])


def _worked(expression: str) -> list[Step]:
    if not SUM.fullmatch(expression):
        raise DataError(f"cannot work out {expression!r}: only sums of whole numbers, like 12 + 34 - 5, can be")
    first, *rest = expression.split(" ")
    left = int(first)
    steps = []
    for sign, term in zip(rest[::2], map(int, rest[1::2]), strict=True):
        steps.append(Step(left, sign, term, left + term if sign == "+" else left - term))
        left = steps[-1].result
    return steps


def _with_slip(steps: Sequence[Step], rng: Random) -> list[Step]:
    """One step off, where possible one that has something to carry, and the steps after it off by as much."""
    at = rng.choice([index for index, step in enumerate(steps) if _forgotten(step)] or range(len(steps)))
    off = _slipped(steps[at], rng) - steps[at].result
    after = [replace(step, left=step.left + off, result=step.result + off) for step in steps[at + 1 :]]
    return [*steps[:at], replace(steps[at], result=steps[at].result + off), *after]


def _slipped(step: Step, rng: Random) -> int:
    """The result with one carry or borrow forgotten; where there is none, off by one or by ten."""
    size = abs(step.result)
    wrong = [size + off for off in _forgotten(step) or (-10, -1, 1, 10)]
    return rng.choice([value for value in wrong if value >= 0]) * (-1 if step.result < 0 else 1)


def _forgotten(step: Step) -> list[int]:
    """By how much the size of the result changes for each carry, or each borrow, that could be forgotten.

    Written in columns, a step adds two sizes or takes the smaller from the larger. A forgotten carry to the column
    of 10^c leaves the sum 10^c too small, and a forgotten borrow from it the difference as much too large. A carry
    to a column that neither number has is written down, not remembered, and so never forgotten.
    """
    small, large = sorted((abs(step.left), abs(step.addend)))
    adding = (step.left < 0) == (step.addend < 0)
    unit, changes = 10, []
    while unit <= large:
        if adding and large % unit + small % unit >= unit:
            changes.append(-unit)
        if not adding and large % unit < small % unit:
            changes.append(unit)
        unit *= 10
    return changes
