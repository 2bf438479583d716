"""Mathematics: whether the answer of a reply is the expected one. Exactly where that can be told, else by math-verify.

What is written as a number, several, a point, an interval or a word is compared exactly, here. Expressions go to
math-verify, in the sandbox and for a second at most, since sympy can be kept busy by a few characters.
"""

import re
from dataclasses import dataclass

from fettle.config import SandboxSettings
from fettle.errors import DataError, ScorerError, ScorerTimeout
from fettle.rewards.exact import NAMED, compact, plain, same, small
from fettle.rewards.matching import expected
from fettle.rewards.tags import CLOSE, OPEN, tagged_answer
from fettle.sandbox import Sandbox, sandbox
from fettle.types import Task

BOX = re.compile(r"\\f?boxed\s*\{")
SYMBOLIC = "fettle.rewards.symbolic:equivalent"
SETTINGS = SandboxSettings(seconds=1.0, memory_mib=1024)
"""Where expressions are compared, unless a recipe says otherwise."""
SEPARATORS = re.compile(r",|;|=|±|(?<![a-zA-Z])(?:and|or)(?![a-zA-Z])")
SHORTEST_COPY = 2


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of an answer."""

    right: bool
    answered: bool = True
    """Whether there was one answer at all."""
    timed_out: bool = False
    """Whether nobody could tell in the time that there is; it then counts as wrong."""


async def math(reply: str, task: Task) -> float:
    """1 where the answer of ``reply`` says the same as the task's, however it is written.

    Raises:
        DataError: the task's answer is neither a text nor a number, or too long to be an answer.
        SandboxError: expressions have to be compared, and no sandbox can be had.
    """
    given = final_answer(reply)
    checked = await verdict(
        expected(task), reply if given is None else given, question=question(task), symbols=sandbox(SETTINGS)
    )
    return float(checked.right)


def final_answer(reply: str) -> str | None:
    r"""What stands in the one pair of answer tags or, without tags, in the last ``\boxed{...}``; else None.

    >>> final_answer(r"So \boxed{3}, no: \boxed{\frac{1}{2}}."), final_answer("<answer> 7 </answer>"), final_answer("7")
    ('\\frac{1}{2}', '7', None)
    """
    if OPEN in reply or CLOSE in reply:
        tagged = tagged_answer(reply)
        return tagged if tagged is None else _boxed(tagged) or tagged
    return _boxed(reply)


async def verdict(wanted: str, answer: str, *, question: str, symbols: Sandbox | None) -> Verdict:
    """Whether ``answer`` is the ``wanted`` one.

    Without ``symbols`` what cannot be told exactly counts as wrong. An expression that was copied from the
    ``question`` is no answer to it.

    Raises:
        DataError: ``wanted`` is too long to be an answer.
        SandboxError: nothing can be compared in the sandbox.
        ScorerError: math-verify fails on ``wanted`` alone.
    """
    right = same(wanted, answer)
    if right is not None:
        return Verdict(right)
    expression, said = plain(wanted), plain(answer)
    if expression is None or said is None:
        raise DataError(f"the answer {wanted[:40]!r}... is too long to be compared: give it within 300 characters")
    if symbols is None or _copied(said, question) or not _is_one(expression, said):
        return Verdict(right=False)
    try:
        return Verdict(bool(await symbols.trusted(SYMBOLIC, wanted, answer)))
    except ScorerTimeout:
        return Verdict(right=False, timed_out=True)
    except ScorerError:
        # Whose fault it is, is found by trial: breaking the comparison must not spare a policy a wrong answer's reward.
        await symbols.trusted(SYMBOLIC, wanted, wanted)
        return Verdict(right=False)


def question(task: Task) -> str:
    """What was asked last."""
    return task.prompt[-1].content if task.prompt else ""


def _boxed(text: str) -> str | None:
    last = None
    for match in BOX.finditer(text):
        last = match
    inside = None if last is None else _balanced(text, last.end())
    return inside.strip() if inside and inside.strip() else None


def _balanced(text: str, start: int) -> str | None:
    """From ``start`` to the brace that closes the one before it."""
    opened = 1
    for found in re.finditer(r"[{}]", text[start:]):
        opened += 1 if found.group() == "{" else -1
        if opened == 0:
            return text[start : start + found.start()]
    return None


def _copied(said: str, question: str) -> bool:
    return len(compact(said)) >= SHORTEST_COPY and compact(said) in compact(small(question))


def _is_one(wanted: str, said: str) -> bool:
    """Whether no more is said than was asked: an answer that lists, or equates, guesses as well."""
    return len(SEPARATORS.findall(_unnamed(said))) <= len(SEPARATORS.findall(_unnamed(wanted)))


def _unnamed(text: str) -> str:
    named = NAMED.match(text)
    return text if named is None else text[named.end() :]
