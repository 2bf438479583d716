"""Problems from files: HumanEval's rows, MBPP's, those of APPS, and rows of one's own."""

import ast
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic_core import PydanticSerializationError

from fettle.config import ListedProblems
from fettle.environments.code_asserts import Converted, called, converted
from fettle.errors import DataError
from fettle.rewards.code_inside import encoded
from fettle.rewards.coding import CallTest, CheckTest, Problem, StreamTest, literal
from fettle.rows import Row, rows

HOME: Mapping[str, str] = MappingProxyType(
    {
        "humaneval": "HumanEval.jsonl.gz lies in the folder data of github.com/openai/human-eval: unpack it",
        "mbpp": "mbpp.jsonl and sanitized-mbpp.json lie in the folder mbpp of google-research on GitHub",
        "apps": "train.jsonl and test.jsonl of APPS lie at huggingface.co/datasets/codeparrot/apps",
        "own": 'write it: {"prompt": ..., "function": ..., "tests": [{"arguments": [...], "expected": ...}]} a line',
    }
)
"""How to come by a file of each format."""

About = Mapping[str, object]
"""Fields of a problem, but for its tests."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A problem in words, and what answers to it are graded by."""

    question: str
    problem: Problem


def listed(config: ListedProblems) -> list[Asked]:
    """The problems of a file, in its order.

    Raises:
        DataError: it is not there, or a row of it cannot be used.
    """
    if not Path(config.path).is_file():
        raise DataError(f"{config.path} is not there, and nothing stands in for it: {HOME[config.format]}")
    found = (READERS[config.format](row, config) for row in rows(config.path))
    return [asked for asked in found if asked is not None]


def humaneval(row: Row, config: ListedProblems) -> Asked | None:
    """``prompt``, ``entry_point``, ``canonical_solution``, ``test``: a function ``check`` full of asserts."""
    prompt, name, test = row.text("prompt"), row.text("entry_point"), row.text("test")
    statements = _parsed(test, row.place, "test").body
    checks = [each for each in statements if isinstance(each, ast.FunctionDef) and each.name == "check"]
    if len(checks) != 1 or len(checks[0].args.args) != 1:
        raise DataError(f"{row.place}: test must define check(candidate) once")
    candidate = checks[0].args.args[0].arg
    before = [each for each in _parsed(prompt, row.place, "prompt").body if getattr(each, "name", "") != name]
    return _asked(
        row,
        config,
        f"Write this Python function, whole:\n\n{prompt.strip()}",
        converted(checks[0].body, [candidate, name]),
        {
            "answer": prompt + str(row.fields.get("canonical_solution", "")),
            "before": _source(before),
            "named": (candidate, name),
            "kinds": False,
        },
        whole=f"{test}\ncheck({name})",
    )


def mbpp(row: Row, config: ListedProblems) -> Asked | None:
    """``text`` (or ``prompt``), ``code``, ``test_list``: asserts, and beside them what they need."""
    question = row.text("text" if "text" in row.fields else "prompt")
    texts = [*_texts(row, "test_list"), *_texts(row, "challenge_test_list")]
    body = [each for text in texts for each in _parsed(text, row.place, "test_list").body]
    code = row.text("code")
    defined = [each.name for each in _parsed(code, row.place, "code").body if isinstance(each, ast.FunctionDef)]
    names = [name for name in called(body) if name in defined]
    if not names:
        raise DataError(f"{row.place}: no test calls a function that code defines")
    about = {
        "answer": code,
        "before": "\n".join(_texts(row, "test_imports")),
        "after": str(row.fields.get("test_setup_code") or ""),
        "named": (names[0],),
        "kinds": False,
    }
    question = f"{question.strip()}\nCall the function {names[0]}."
    return _asked(row, config, question, converted(body, names), about, whole="\n".join(texts))


def apps(row: Row, config: ListedProblems) -> Asked | None:
    """``question``, ``input_output``: inputs and outputs of a program, or of the function ``fn_name``."""
    given = row.fields.get("input_output")
    told = _json(given, row) if isinstance(given, str) else given
    if not isinstance(told, Mapping) or not _lists(told.get("inputs"), told.get("outputs")):
        raise DataError(f"{row.place}: input_output must hold inputs and outputs, as many of the one as of the other")
    question, name = row.text("question").strip(), told.get("fn_name")
    pairs = list(zip(told["inputs"], told["outputs"], strict=True))
    if name is None:
        question += "\n\nWrite a program that reads from standard input and prints to standard output."
        tests: list[Any] = [StreamTest(stdin=_joined(one), stdout=_joined(other)) for one, other in pairs]
        return _split(row, config, question, tests, {"answer": _first_solution(row)})
    question += f"\n\nCall the function {name}."
    calls = [_call(name, one, other, row.place) for one, other in pairs]
    return _split(row, config, question, calls, {"answer": _first_solution(row), "named": (name,)})


def own(row: Row, config: ListedProblems) -> Asked | None:
    """``prompt``, ``tests``, and for those of a function its name; perhaps ``answer`` and ``setup``."""
    row.check_keys(("prompt", "tests", "function", "answer", "setup"))
    given = row.fields.get("tests")
    if not isinstance(given, list):
        raise DataError(f"{row.place}: tests must be a list of objects: arguments and expected, or input and output")
    name = row.text("function") if "function" in row.fields else None
    tests = [_own_test(test, name, f"{row.place}: tests[{index}]") for index, test in enumerate(given)]
    about = {
        "answer": row.text("answer") if "answer" in row.fields else None,
        "before": row.text("setup") if "setup" in row.fields else "",
        "named": (name,) if name else (),
    }
    return _split(row, config, row.text("prompt"), tests, about)


READERS: Mapping[str, Callable[[Row, ListedProblems], Asked | None]] = MappingProxyType(
    {"humaneval": humaneval, "mbpp": mbpp, "apps": apps, "own": own}
)


def _asked(
    row: Row, config: ListedProblems, question: str, found: Converted, about: About, *, whole: str
) -> Asked | None:
    """A problem whose tests were asserts; ``whole`` are all of them as they were."""
    if found.left and config.inexact == "refuse":
        raise DataError(
            f"{row.place}: this cannot be compared outside of the sandbox: {_begins(found.left[0])}: take the row out,"
            " or set problems.inexact to leave_out, which does without such tests, or to run, which is weaker"
        )
    tests: list[Any] = list(found.tests)
    if found.left and config.inexact == "run":
        tests.append(CheckTest(source=whole))
    if len(tests) <= config.shown and found.left:
        return None  # what could be compared is too little to grade by
    return _split(row, config, question, tests, about)


def _split(row: Row, config: ListedProblems, question: str, tests: Sequence[Any], about: About) -> Asked:
    """The first tests are told in the question, the others stay hidden."""
    if len(tests) <= config.shown:
        raise DataError(
            f"{row.place}: it has {len(tests)} tests, and {config.shown} would be shown: one must stay hidden, so add"
            " tests or lower problems.shown"
        )
    shown = tuple(test for test in tests[: config.shown] if not isinstance(test, CheckTest))
    hidden = tuple(tests[len(shown) :])
    told = "".join(f"\n{example(test)}" for test in shown)
    problem = Problem.model_validate({**about, "shown": shown, "hidden": hidden})
    try:
        problem.model_dump_json()
    except PydanticSerializationError as error:
        raise DataError(f"{row.place}: its code holds half a surrogate pair: remove it") from error
    return Asked(question + (f"\n\nFor example:{told}" if told else ""), problem)


def example(test: CallTest | StreamTest) -> str:
    """A test that may be told, with what should come out."""
    if isinstance(test, StreamTest):
        return f"for the input\n{test.stdin.rstrip()}\nit prints\n{test.stdout.rstrip()}"
    if test.truth:
        return f"{test.expression} is {'true' if test.expected else 'false'}"
    return f"{test.expression} == {literal(test.expected)}"


def _own_test(test: Any, name: str | None, place: str) -> CallTest | StreamTest:
    match test:
        case {"arguments": list(arguments), "expected": expected} if name and len(test) == 2:
            return _call(name, arguments, expected, place)
        case {"input": str(stdin), "output": str(stdout)} if not name and len(test) == 2:
            return StreamTest(stdin=stdin, stdout=stdout)
    wanted = "arguments (a list) and expected" if name else "input and output (texts), or the row a function"
    raise DataError(f"{place}: it must have {wanted}, and nothing else")


def _call(name: object, arguments: Any, expected: Any, place: str) -> CallTest:
    if not isinstance(name, str) or not name.isidentifier() or not isinstance(arguments, list):
        raise DataError(f"{place}: a call needs the name of a function and a list of arguments")
    return CallTest(expression=f"{name}({', '.join(map(repr, arguments))})", expected=encoded(expected))


def _parsed(source: str, place: str, field: str) -> ast.Module:
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError) as error:
        raise DataError(f"{place}: {field} is no Python ({error})") from error


def _source(statements: Sequence[ast.stmt]) -> str:
    return "\n".join(map(ast.unparse, statements))


def _texts(row: Row, name: str) -> list[str]:
    given = row.fields.get(name) or []
    if not isinstance(given, list) or not all(isinstance(text, str) for text in given):
        raise DataError(f"{row.place}: {name} must be a list of texts")
    return given


def _json(text: str, row: Row) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{row.place}: input_output is not JSON ({error})") from error


def _lists(one: object, other: object) -> bool:
    return isinstance(one, list) and isinstance(other, list) and len(one) == len(other) > 0


def _joined(text: object) -> str:
    """Some rows hold the lines of a text, others the text."""
    return "\n".join(map(str, text)) if isinstance(text, list) else str(text)


def _first_solution(row: Row) -> str | None:
    given = row.fields.get("solutions")
    told = _json(given, row) if isinstance(given, str) and given else given
    return str(told[0]) if isinstance(told, list) and told else None


def _begins(statement: str) -> str:
    return statement.partition("\n")[0][:80]
