"""Files of each format, written here in that format: read as they are, and never stood in for."""

import json

import pytest

from fettle.config import Code, ListedProblems
from fettle.environments import suite
from fettle.environments.code_files import HOME, READERS, listed
from fettle.environments.coding import CodeSuite
from fettle.errors import DataError
from fettle.types import Message

HUMANEVAL = {
    "task_id": "Own/0",
    "prompt": (
        "from typing import List\n\ndef half(x: float) -> float:\n    return x / 2\n\n\n"
        'def halves(values: List[float]) -> List[float]:\n    """Each value, halved.\n    >>> halves([4.0])\n'
        '    [2.0]\n    """\n'
    ),
    "entry_point": "halves",
    "canonical_solution": "    return [half(v) for v in values]\n",
    "test": (
        "METADATA = {'author': 'us'}\n\n\ndef check(candidate):\n"
        "    assert candidate([4.0]) == [2.0]\n    assert candidate([]) == []\n"
        "    assert abs(candidate([0.2])[0] - 0.1) < 1e-6\n    assert True, 'fine'\n"
    ),
}
LOOP = {**HUMANEVAL, "test": HUMANEVAL["test"] + "    for n in range(3):\n        assert candidate([n]) == [n / 2]\n"}
MBPP = {
    "task_id": 1,
    "text": "Write a function to add up the numbers of a pair.",
    "code": "def pair_sum(pair):\r\n  return float(sum(pair))",
    "test_list": ["assert pair_sum((1, 2)) == 3", "assert pair_sum((0, 0)) == 0", "assert pair_sum((5, -7)) == -2"],
    "test_setup_code": "",
    "challenge_test_list": [],
}
SANITIZED = {
    **{name: value for name, value in MBPP.items() if name != "text"},
    "prompt": MBPP["text"],
    "test_imports": ["import math"],
}
APPS = {
    "question": "Read n and print its square.",
    "input_output": json.dumps({"inputs": ["3\n", "-4\n", "0\n"], "outputs": ["9\n", "16\n", "0\n"]}),
    "solutions": json.dumps(["n = int(input())\nprint(n * n)"]),
}
APPS_CALLED = {
    "question": "The square of n.",
    "input_output": {"fn_name": "square", "inputs": [[3], [-4]], "outputs": [9, 16]},
    "solutions": ["def square(n):\n    return n * n"],
}
OWN = {
    "prompt": "Write up(a, b).",
    "function": "up",
    "tests": [{"arguments": ["x", 1], "expected": ["x"]}, {"arguments": ["y", 2], "expected": ["y", "y"]}],
    "answer": "def up(a, b): return [a] * b",
}
OWN_PROGRAM = {
    "prompt": "Print the input twice.",
    "tests": [{"input": "a\n", "output": "a\na"}, {"input": "b\n", "output": "b\nb"}],
    "answer": "x = input()\nprint(x)\nprint(x)",
}
ROWS = [
    ("humaneval", HUMANEVAL),
    ("mbpp", MBPP),
    ("mbpp", SANITIZED),
    ("apps", APPS),
    ("apps", APPS_CALLED),
    ("own", OWN),
    ("own", OWN_PROGRAM),
]

PATIENT = {"seconds": 20.0}
"""As long as a busy machine needs."""


@pytest.fixture
def file(tmp_path):
    def written(*rows) -> str:
        path = tmp_path / "problems.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    return written


async def paid(made: CodeSuite, task, code: str) -> float:
    environment = made.environment()
    await environment.reset(task)
    return (await environment.step(Message("assistant", f"```python\n{code}\n```"))).reward


@pytest.mark.parametrize(("form", "row"), ROWS)
async def test_a_row_s_own_solution_is_right_and_another_is_not(file, form, row):
    asked = next(name for name in ("text", "question", "prompt") if name in row)
    again = {asked: f"# Again.\n{row[asked]}"}
    path = file(row, {**row, **again})
    made = suite(Code(problems={"type": "file", "path": path, "format": form}, heldout=1, sandbox=PATIENT))
    task = made.training_task(0)
    assert await paid(made, task, task.data["answer"]) == 1.0
    assert await paid(made, task, "def halves(values): return values\npair_sum = square = up = halves") == 0.0


def test_questions_name_what_is_called_and_what_is_shown(file):
    [asked] = listed(ListedProblems(path=file(MBPP), format="mbpp"))
    assert asked.question.endswith("Call the function pair_sum.\n\nFor example:\npair_sum((1, 2)) == 3")
    [asked] = listed(ListedProblems(path=file(APPS), format="apps"))
    assert asked.question.endswith("For example:\nfor the input\n3\nit prints\n9")
    [asked] = listed(ListedProblems(path=file(HUMANEVAL), format="humaneval", shown=0))
    assert "For example" not in asked.question
    assert asked.problem.named == ("candidate", "halves")
    assert "def half(x: float)" in asked.problem.before
    assert "def halves" not in asked.problem.before


def test_no_hidden_test_is_in_the_question(file):
    for form, row in ROWS:
        [asked] = listed(ListedProblems(path=file(row), format=form))
        for test in asked.problem.hidden:
            assert (test.expression if test.type == "call" else f"input\n{test.stdin.rstrip()}\n") not in asked.question


def test_asserts_that_cannot_be_compared_outside_are_refused_by_name(file):
    with pytest.raises(
        DataError, match=r"problems.jsonl:1: this cannot be compared outside .*: for n in range\(3\):.*"
    ):
        listed(ListedProblems(path=file(LOOP), format="humaneval"))


def test_they_are_left_out_where_that_is_asked_for(file):
    [asked] = listed(ListedProblems(path=file(LOOP), format="humaneval", inexact="leave_out"))
    assert [test.type for test in asked.problem.hidden] == ["call", "call"]
    nothing = {**LOOP, "test": "def check(candidate):\n    for n in range(3):\n        assert candidate([n])\n"}
    assert listed(ListedProblems(path=file(nothing), format="humaneval", inexact="leave_out")) == []


async def test_or_run_beside_the_answer(file):
    path = file(LOOP, {**LOOP, "prompt": "# Again.\n" + LOOP["prompt"]})
    problems = {"type": "file", "path": path, "format": "humaneval", "inexact": "run"}
    made = suite(Code(problems=problems, heldout=1, sandbox=PATIENT))
    task = made.training_task(0)
    assert [test["type"] for test in task.data["hidden"]] == ["call", "call", "check"]
    assert await paid(made, task, task.data["answer"]) == 1.0
    assert await paid(made, task, "def halves(values): return [v / 2 for v in values if v != 2]") == 0.0


@pytest.mark.parametrize("form", READERS)
def test_a_file_that_is_not_there_is_an_error_that_says_where_to_get_it(form, tmp_path):
    with pytest.raises(DataError) as error:
        suite(Code(problems={"type": "file", "path": str(tmp_path / "gone.jsonl"), "format": form}))
    assert error.value.message == f"{tmp_path}/gone.jsonl is not there, and nothing stands in for it: {HOME[form]}"


WRONG = [
    ("own", {**OWN, "test": []}, "nothing here reads test"),
    ("own", {**OWN, "tests": {}}, "tests must be a list"),
    ("own", {**OWN, "tests": [{"arguments": 1, "expected": 2}]}, r"tests\[0\]: it must have arguments"),
    ("own", {**OWN_PROGRAM, "tests": [{"arguments": [], "expected": 2}]}, r"tests\[0\]: it must have input"),
    ("own", {**OWN, "function": "a b"}, "needs the name of a function"),
    ("own", {**OWN, "tests": OWN["tests"][:1]}, "1 tests, and 1 would be shown"),
    ("humaneval", {**HUMANEVAL, "test": "assert 1"}, "must define check"),
    ("humaneval", {**HUMANEVAL, "prompt": "def ("}, "prompt is no Python"),
    ("mbpp", {**MBPP, "code": "def other(): pass"}, "no test calls a function that code defines"),
    ("mbpp", {**MBPP, "test_list": "assert"}, "test_list must be a list of texts"),
    ("apps", {**APPS, "input_output": "{"}, "input_output is not JSON"),
    ("apps", {**APPS, "input_output": {"inputs": [1], "outputs": []}}, "as many of the one"),
    ("apps", {**APPS_CALLED, "input_output": {**APPS_CALLED["input_output"], "fn_name": 7}}, "the name of a function"),
    ("humaneval", {**HUMANEVAL, "canonical_solution": "    return '\ud800'"}, "half a surrogate pair"),
]


@pytest.mark.parametrize(("form", "row", "complaint"), WRONG)
def test_a_row_that_cannot_be_used_is_named_with_its_place(form, row, complaint, file):
    with pytest.raises(DataError, match=rf"problems\.jsonl:1.*{complaint}"):
        listed(ListedProblems(path=file(row), format=form))
