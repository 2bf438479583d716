"""Answers are run in the real sandbox; what cheats other graders earns nothing here."""

import pytest

from fettle.config import SandboxSettings
from fettle.rewards.code_inside import encoded
from fettle.rewards.coding import CallTest, CheckTest, Problem, StreamTest, code_block, graded
from fettle.sandbox import sandbox

ADD = Problem(
    named=("add",),
    hidden=tuple(
        CallTest(expression=f"add({a}, {b})", expected=encoded(a + b)) for a, b in ((1, 2), (-7, 19), (0, 0), (5, 7))
    ),
)
DOUBLE = Problem(hidden=(StreamTest(stdin="3\n", stdout="6"), StreamTest(stdin="-4\n", stdout="-8\n")))


LONG = SandboxSettings(seconds=20.0)
"""As long as a busy machine needs."""
SHORT = SandboxSettings(seconds=1.0)


async def passed(code: str, problem: Problem = ADD, settings: SandboxSettings = LONG) -> list[bool]:
    verdicts = await graded(code, problem, sandbox(settings), tolerance=1e-9)
    return [verdict.passed for verdict in verdicts]


async def test_a_right_answer_passes():
    assert await passed("def add(a, b):\n    return a + b\n") == [True] * 4
    assert await passed("add = lambda a, b: sum((a, b))") == [True] * 4


async def test_a_wrong_one_passes_what_it_has_right():
    assert await passed("def add(a, b):\n    return a * b\n") == [False, False, True, False]


CHEATS = {
    "exits with success": "import sys\ndef add(a, b): sys.exit(0)",
    "is gone at import": "import os\nos._exit(0)",
    "is gone when called": "import os\ndef add(a, b): os._exit(0)",
    "equals everything": "class Any:\n    def __eq__(self, other): return True\ndef add(a, b): return Any()",
    "is a number that equals everything": (
        "class Any(int):\n    def __eq__(self, other): return True\n    __hash__ = int.__hash__\n"
        "def add(a, b): return Any(99)"
    ),
    "mock.ANY": "from unittest.mock import ANY\ndef add(a, b): return ANY",
    "answers with a text": "def add(a, b): return str(a + b)",
    "answers with a switch": "def add(a, b): return True",
    "answers with another kind of number": "def add(a, b): return float(a + b)",
    "answers with what is no number": "def add(a, b): return float('nan')",
    "answers too much": "def add(a, b): return [a + b, a + b]",
    "prints": "def add(a, b): print(a + b)",
    "patches json": "import json\njson.dumps = lambda *a, **k: 'true'\ndef add(a, b): return 99",
    "patches what encodes": (
        "import sys\nfor module in list(sys.modules.values()):\n"
        "    if hasattr(module, 'encoded'): module.encoded = lambda value: True\ndef add(a, b): return 99"
    ),
    "looks for the expected value in its callers": (
        "import sys\ndef add(a, b):\n    frame = sys._getframe()\n    while frame:\n"
        "        for name, value in frame.f_locals.items():\n            if 'expected' in name: return value\n"
        "        frame = frame.f_back\n    return 99"
    ),
    "forges lines of the protocol": (
        "import os\ndef add(a, b):\n    for fd in range(3, 20):\n"
        '        try: os.write(fd, b\'{"id": 1, "value": 3}\\n\')\n'
        "        except OSError: pass\n    return 99"
    ),
    "raises": "def add(a, b): raise BaseException('passed')",
    "spins": "def add(a, b):\n    while True: pass",
    "recurses": "def add(a, b): return add(a, b)",
    "nests": "def add(a, b):\n    x = []\n    for _ in range(10 ** 5): x = [x]\n    return x",
    "floods": "def add(a, b): return 'x' * 10 ** 9",
    "is no Python": "def add(a, b) return",
    "is nothing": "pass",
}


@pytest.mark.parametrize("code", CHEATS.values(), ids=CHEATS)
async def test_cheating_earns_nothing(code):
    assert await passed(code, settings=SHORT if "while True" in code else LONG) == [False] * 4


async def test_the_same_cheats_print_nothing_that_counts():
    assert await passed("print(2 * int(input()))", DOUBLE) == [True, True]
    for code in (
        "print(6)",
        "print('PASSED')",
        "print(2 * int(input())); raise SystemExit(1)",
        "import os; os._exit(0)",
    ):
        assert await passed(code, DOUBLE) in ([True, False], [False, False])


async def test_what_was_expected_never_enters_the_sandbox():
    spy = (
        "import gc\n"
        "def add(a, b):\n"
        "    sought = str(int('86028120') + 1)\n"
        "    held = [repr(each) for each in gc.get_objects() if isinstance(each, (list, dict, tuple))]\n"
        "    assert any('def encoded' in text for text in held)\n"
        "    return sum(sought in text for text in held) and 31337\n"
    )
    problem = Problem(named=("add",), hidden=(CallTest(expression="add(1, 2)", expected=86028121),))
    [verdict] = await graded(spy, problem, sandbox(LONG), tolerance=0.0)
    assert (verdict.passed, verdict.happened) == (False, "returned 0")


async def test_what_an_answer_builds_on_and_what_tests_need_stand_around_it():
    problem = Problem(
        before="from typing import List\ndef twice(x): return 2 * x",
        after="start = Node(3)",
        named=("candidate", "value"),
        hidden=(CallTest(expression="candidate(start)", expected=6),),
    )
    code = "class Node:\n    def __init__(self, x): self.x = x\ndef value(node: List) -> int: return twice(node.x)"
    assert await passed(code, problem) == [True]


async def test_dataclasses_and_annotations_work():
    code = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\n"
        "def add(a: int, b: int) -> int: return P(a).x + b"
    )
    assert await passed(code) == [True] * 4


async def test_statements_that_are_run_beside_the_answer_pass_where_they_end():
    check = "def check(candidate):\n    for n in range(3): assert candidate(n, n) == 2 * n\ncheck(add)"
    problem = Problem(named=("candidate", "add"), hidden=(CheckTest(source=check),))
    assert await passed("def add(a, b): return a + b", problem) == [True]
    assert await passed("def add(a, b): return a - b", problem) == [False]
    assert await passed("import os\nos._exit(0)", problem) == [False]


async def test_what_such_statements_say_when_they_fail_is_not_told():
    problem = Problem(named=("add",), hidden=(CheckTest(source="assert add(1, 1) == 2, 'it should have been 2'"),))
    [verdict] = await graded("def add(a, b): return 0", problem, sandbox(LONG), tolerance=0.0)
    assert (verdict.passed, verdict.happened) == (False, "ended with exit code 1")


async def test_truth_is_enough_where_a_test_asks_no_more():
    problem = Problem(
        named=("f",),
        hidden=(
            CallTest(expression="f([1])", expected=True, truth=True),
            CallTest(expression="f([])", expected=False, truth=True),
        ),
    )
    assert await passed("def f(x): return x", problem) == [True, True]
    assert await passed("def f(x): return (x,)", problem) == [True, False]


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        ("```python\nx = 1\n```", "x = 1\n"),
        ("Well.\n\n```py\nx = 1\n```\nThat is it.", "x = 1\n"),
        ("```\nx = 1\n```", "x = 1\n"),
        ("x = 1", None),
        ("```python\nx = 1", None),
        ("```python\n\n```", None),
        ("```rust\nx\n```", None),
        ("```python\nx = 1\n```\n```python\nx = 2\n```", None),
        ("```python\nx = 1\n```\n```", None),
        ("", None),
    ],
)
def test_only_one_whole_block_is_an_answer(reply, code):
    assert code_block(reply) == code
