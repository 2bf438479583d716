"""Code: the answer taken from a reply, run on tests in the sandbox, and compared outside of it.

What should come out never enters the sandbox, and nothing that is said there is more than a value: so there is nothing
for an answer to read, to patch or to pretend.
"""

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, JsonValue

from fettle.config import Frozen
from fettle.rewards import code_inside
from fettle.rewards.comparison import same, same_output
from fettle.sandbox import Died, Outcome, Raised, Reply, Sandbox, Timeout, Value

FENCE = re.compile(r"^```[ \t]*([a-zA-Z0-9_+-]*)[ \t]*\n(.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)
LANGUAGES = ("", "python", "py", "python3")
LONGEST_TOLD = 200  # characters of a value that are told
_AROUND = Path(code_inside.__file__).read_text(encoding="utf-8")


class CallTest(Frozen):
    """An expression that calls the answer, and the value it should have."""

    type: Literal["call"] = "call"
    expression: str
    """Evaluated inside; it holds no expected value."""
    expected: JsonValue
    """As ``code_inside.encoded`` tells it."""
    tolerance: float = 0.0
    """Allowed of floating-point numbers here, beside what is allowed anyway."""
    truth: bool = False
    """Whether only the truth of the value counts."""


class StreamTest(Frozen):
    """What a program reads, and what it should print."""

    type: Literal["stream"] = "stream"
    stdin: str
    stdout: str


class CheckTest(Frozen):
    """Statements that are run after the answer, and must not raise: weaker, since they are there to be read."""

    type: Literal["check"] = "check"
    source: str


Test = Annotated[CallTest | StreamTest | CheckTest, Field(discriminator="type")]


class Problem(Frozen):
    """What an answer is graded by."""

    answer: str | None = None
    """A right one, if one is known."""
    before: str = ""
    """Code that the answer may build on."""
    after: str = ""
    """Code that the tests need after the answer."""
    named: tuple[str, ...] = ()
    """Names by which the tests call the function; the last is the answer's own."""
    kinds: bool = True
    """Whether whole numbers and floating-point ones are told apart."""
    shown: tuple[Test, ...] = ()
    """Tests that the question tells."""
    hidden: tuple[Test, ...] = Field(min_length=1)
    """Tests that it does not."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One test, and what came of it."""

    test: CallTest | StreamTest | CheckTest
    passed: bool
    happened: str
    """For people and policies: ``returned 3``."""


def code_block(reply: str) -> str | None:
    r"""The code of the one fenced block in a reply; None where there is not exactly one, or it is no Python.

    Strict on purpose: a reply that offers several programs has not decided.

    >>> code_block("So:\n```python\nprint(1)\n```\n")
    'print(1)\n'
    """
    found = FENCE.findall(reply)
    if len(found) != 1 or reply.count("```") != 2:
        return None
    language, code = found[0]
    return code if language.lower() in LANGUAGES and code.strip() else None


async def graded(code: str, problem: Problem, sandbox: Sandbox, *, tolerance: float) -> list[Verdict]:
    """What comes of each test, shown ones first.

    Raises:
        SandboxError: the sandbox failed, which says nothing of the code.
    """
    tests = [*problem.shown, *problem.hidden]
    calls = [test for test in tests if isinstance(test, CallTest)]
    replies = iter(await _replies(code, problem, calls, sandbox))
    verdicts = []
    for test in tests:
        if isinstance(test, CallTest):
            verdicts.append(_judged(test, next(replies), tolerance=tolerance, kinds=problem.kinds))
        elif isinstance(test, StreamTest):
            verdicts.append(await _printed(code, problem, test, sandbox, tolerance))
        else:
            verdicts.append(await _checked(code, problem, test, sandbox))
    return verdicts


async def _replies(code: str, problem: Problem, tests: Sequence[CallTest], sandbox: Sandbox) -> Sequence[Reply]:
    if not tests:
        return ()
    sources = [problem.before, code, problem.after]
    program = f"{_AROUND}\n\nevaluated = evaluator({sources!r}, {list(problem.named)!r})\n"
    return await sandbox.calls(program, "evaluated", [[test.expression] for test in tests])


def _judged(test: CallTest, reply: Reply, *, tolerance: float, kinds: bool) -> Verdict:
    if not isinstance(reply, Value):
        return Verdict(test, passed=False, happened=_unanswered(reply))
    allowed = max(tolerance, test.tolerance)
    try:
        if test.truth:
            passed = _truth(reply.value) == test.expected
        else:
            passed = same(reply.value, test.expected, tolerance=allowed, kinds=kinds, of_whole=test.tolerance)
        return Verdict(test, passed, f"returned {literal(reply.value)}")
    except RecursionError:
        return Verdict(test, passed=False, happened="returned what is nested too deeply")


def _unanswered(reply: Raised | Timeout | Died) -> str:
    if isinstance(reply, Raised):
        return f"raised {_short(f'{reply.type}: {reply.message}')}"
    return "did not return in time" if isinstance(reply, Timeout) else "ended its process instead of returning"


def _truth(value: JsonValue) -> bool:
    return any(map(bool, value.values())) if isinstance(value, dict) else bool(value)


async def _printed(code: str, problem: Problem, test: StreamTest, sandbox: Sandbox, tolerance: float) -> Verdict:
    outcome = await sandbox.run(f"{problem.before}\n{code}" if problem.before else code, stdin=test.stdin.encode())
    if outcome.ending != "exited" or outcome.code != 0:
        return Verdict(test, passed=False, happened=_ended(outcome))
    printed = outcome.stdout.decode(errors="replace")
    return Verdict(
        test, same_output(printed, test.stdout, tolerance=tolerance), f"printed {_short(repr(printed.rstrip()))}"
    )


async def _checked(code: str, problem: Problem, test: CheckTest, sandbox: Sandbox) -> Verdict:
    """Passed where the statements ran to their end, which is told by a word that is drawn for each time."""
    word = secrets.token_hex(16)
    names = "".join(f"{name} = {problem.named[-1]}\n" for name in problem.named[:-1])
    source = "\n".join([problem.before, code, problem.after, names, test.source, f"print({word!r})"])
    outcome = await sandbox.run(source)
    passed = (
        outcome.ending == "exited"
        and outcome.code == 0
        and outcome.stdout.decode(errors="replace").endswith(f"{word}\n")
    )
    # What it said when it ended may be what was expected, and is not told.
    return Verdict(test, passed, "passed" if passed else _ending(outcome))


def _ended(outcome: Outcome) -> str:
    last = outcome.stderr.decode(errors="replace").strip().rpartition("\n")[2]
    return _ending(outcome) + (f": {_short(last)}" if last and outcome.ending == "exited" else "")


def _ending(outcome: Outcome) -> str:
    if outcome.ending == "exited":
        return f"ended with exit code {outcome.code}"
    reasons = {"killed": "was killed", "timeout": "did not end in time"}
    return reasons.get(outcome.ending, f"went beyond its limit of {outcome.ending}")


def literal(value: JsonValue) -> str:
    """A value as Python writes it, cut where it is long."""
    return _short(_written(value))


def _written(value: JsonValue) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_written, value))}]"
    if not isinstance(value, dict):
        return repr(value)
    items = value.get("tuple", value.get("set"))
    if isinstance(items, list):
        inner = ", ".join(map(_written, items))
        if "set" in value:
            return f"{{{inner}}}" if items else "set()"
        return f"({inner},)" if len(items) == 1 else f"({inner})"
    pairs = value.get("dict")
    if isinstance(pairs, list):
        return "{" + ", ".join(": ".join(map(_written, pair)) for pair in pairs if isinstance(pair, list)) + "}"
    return ", ".join(f"{kind} {told}" for kind, told in value.items())


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_TOLD else f"{text[:LONGEST_TOLD]}..."
