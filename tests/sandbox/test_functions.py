"""Calls answer with values, and no solution that cheats comes out right."""

import pytest

from fettle.sandbox import Died, Raised, Timeout, Value

CASES = [([2, 3], 5), ([10, -4], 6), ([7, 5], 12), ([0, 0], 0)]
HONEST = "def add(a, b):\n    return a + b\n"
ASSERTS = "\n".join(f"assert add(*{arguments}) == {expected}" for arguments, expected in CASES)
TESTS = "\n".join(
    [
        "import unittest",
        "class Cases(unittest.TestCase):",
        "    def test_add(self):",
        *(f"        self.assertEqual(add(*{arguments}), {expected})" for arguments, expected in CASES),
        "unittest.main()",
    ]
)

CHEATS = {
    "exits with success when called": "import sys\ndef add(a, b): sys.exit(0)",
    "ends the process when called": "import os\ndef add(a, b): os._exit(0)",
    "ends the process when defined": "import os\nos._exit(0)",
    "exits when defined": "import sys\nsys.exit(0)",
    "an object that equals all": "class A:\n    def __eq__(self, other): return True\ndef add(a, b): return A()",
    "a number that equals all": "class A(int):\n    def __eq__(self, other): return True\n    __hash__ = int.__hash__\n"
    "def add(a, b): return A(1)",
    "mock.ANY": "from unittest import mock\ndef add(a, b): return mock.ANY",
    "says that it passed": "import os\nprint('ALL TESTS PASSED', flush=True)\nos._exit(0)",
    "reads its own source": "import inspect, re, sys\ndef add(a, b):\n"
    "    text = inspect.getsource(sys.modules['__main__'])\n    return int(re.search(r'== (\\d+)', text)[1])",
    "reads the file it is in": "import re\ndef add(a, b):\n"
    "    return int(re.search(rf'\\[{a}, {b}\\]\\) == (-?\\d+)', open('main.py').read())[1])",
    "turns the exit code": "import atexit, os\natexit.register(os._exit, 0)\ndef add(a, b): return None",
    "hides exceptions": "import os, sys\nsys.excepthook = lambda *_: os._exit(0)\ndef add(a, b): return None",
    "reads its caller": "import sys\ndef add(a, b):\n    frame = sys._getframe(1)\n"
    "    while frame:\n        for value in frame.f_locals.values():\n"
    "            if isinstance(value, dict) and 'expected' in value: return value['expected']\n"
    "        frame = frame.f_back",
    "searches memory for what is expected": "import gc\ndef add(a, b):\n    for each in gc.get_objects():\n"
    "        if isinstance(each, dict) and each.get('arguments') == [a, b] and 'expected' in each:\n"
    "            return each['expected']",
    "patches unittest": "import unittest\nunittest.TestCase.assertEqual = lambda *_, **__: None\n"
    "def add(a, b): return None",
    "patches how unittest counts": "import unittest\nunittest.TestResult.wasSuccessful = lambda self: True\n"
    "unittest.TextTestResult.addFailure = unittest.TextTestResult.addError = lambda *_: None\n"
    "def add(a, b): return None",
    "leaves a conftest.py": "open('conftest.py', 'w').write('def pytest_runtest_makereport(): pass')\n"
    "def add(a, b): return None",
    "answers by itself": "import os\nfor place in range(3, 32):\n    try:\n"
    '        os.write(place, b\'{"id": "0", "value": 5}\\n\' * 9)\n    except OSError: pass\n'
    "def add(a, b): return None",
    "answers twice": "import gc, os, socket\ndef add(a, b):\n    for place in range(3, 32):\n        try:\n"
    "            os.write(place, b'5\\n5\\n')\n        except OSError: pass\n    return None",
    "patches json": "import json\njson.dumps = lambda *_, **__: '5'\njson.JSONEncoder.encode = lambda *_: '5'\n"
    "def add(a, b): return None",
    "no number": "def add(a, b): return float('nan')",
    "beyond all numbers": "def add(a, b): return float('inf')",
    "raises what is no Exception": "def add(a, b): raise BaseException('5')",
    "spins on, its alarm off": "import signal\ndef add(a, b):\n    signal.alarm(0)\n    while True: pass",
    "sleeps": "import time\ndef add(a, b): time.sleep(60)",
    "a text": "def add(a, b): return str(a + b)",
    "a fraction": "def add(a, b): return float(a + b)",
    "a truth": "def add(a, b): return a + b == a + b",
    "knows the first case by heart": "def add(a, b): return 5",
    "counts calls": "answers = iter([5, 6, 12, 0])\ndef add(a, b): return next(answers)",
    "an exception that cannot be told": "class E(Exception):\n    def __str__(self): raise E\ndef add(a, b): raise E",
    "is not there": "def sub(a, b): return a - b",
    "is wrong": "def add(a, b): return a - b",
}
"""Solutions of ``add`` that do not add."""

FOOLS = {  # which of them a program of asserts, judged by its exit code, takes for right
    "exits with success when called",
    "ends the process when called",
    "ends the process when defined",
    "exits when defined",
    "an object that equals all",
    "a number that equals all",
    "mock.ANY",
    "says that it passed",
    "reads the file it is in",
    "turns the exit code",
    "hides exceptions",
    "a fraction",
}


def right(replies):
    """Compared as it is to be: outside, and with the type."""
    expected = [answer for _, answer in CASES]
    return all(
        isinstance(reply, Value) and type(reply.value) is type(answer) and reply.value == answer
        for reply, answer in zip(replies, expected, strict=True)
    )


async def test_an_honest_solution_is_right(box):
    assert right(await box.calls(HONEST, "add", [arguments for arguments, _ in CASES]))


@pytest.mark.parametrize("cheat", CHEATS)
async def test_a_cheat_is_not(box, cheat):
    assert not right(await box.calls(CHEATS[cheat], "add", [arguments for arguments, _ in CASES], seconds=0.5))


@pytest.mark.parametrize("cheat", sorted(FOOLS))
async def test_it_fools_asserts(box, cheat):
    outcome = await box.run(f"{CHEATS[cheat]}\n{ASSERTS}")
    assert (outcome.ending, outcome.code) == ("exited", 0)


@pytest.mark.parametrize("cheat", ["patches unittest", "patches how unittest counts"])
async def test_it_fools_unittest(box, cheat):
    assert (await box.run(f"{CHEATS[cheat]}\n{TESTS}")).code == 0
    assert (await box.run(f"{CHEATS['is wrong']}\n{TESTS}")).code == 1


@pytest.mark.parametrize("value", [None, True, -3, 0.5, "ü\n", [], [1, [2]], {"a": {"b": None}}])
async def test_json_goes_in_and_comes_out(box, value):
    assert await box.calls("def same(x): return x", "same", [[value]]) == [Value(value)]


async def test_each_call_has_its_own_answer_in_the_order_given(box):
    source = "import os, time\ndef f(x):\n" + "\n".join(
        [
            "    if x == 'slow': time.sleep(60)",
            "    if x == 'gone': os._exit(1)",
            "    if x == 'bad': raise ValueError('so bad')",
            "    if x == 'odd': return {1, 2}",
            "    return x",
        ]
    )
    words = ["a", "slow", "b", "gone", "c", "bad", "odd", "d"]
    replies = await box.calls(source, "f", [[word] for word in words], seconds=0.5)
    assert replies[:6] == [Value("a"), Timeout(), Value("b"), Died(), Value("c"), Raised("ValueError", "so bad")]
    assert replies[6].type == "TypeError"
    assert replies[7] == Value("d")


async def test_calls_come_in_an_order_that_the_function_does_not_know_but_the_same_each_time(box):
    source = "seen = []\ndef f(x):\n    seen.append(x)\n    return list(seen)"
    replies = await box.calls(source, "f", [[n] for n in range(8)])
    order = max((reply.value for reply in replies), key=len)
    assert sorted(order) == list(range(8)) != order
    assert replies == await box.calls(source, "f", [[n] for n in range(8)])


async def test_all_calls_together_have_an_end(box):
    replies = await box.calls("def f(x):\n    while True: pass", "f", [[n] for n in range(30)], seconds=0.2)
    assert replies == [Timeout()] * 30


async def test_an_answer_without_end_is_no_answer(box):
    assert await box.calls("def f(): return 'x' * 10_000_000", "f", [[]]) == [Died()]


async def test_an_answer_too_deep_is_no_answer(box):
    source = "import sys\ndef f():\n    print()\n    x = []\n    for _ in range(50_000): x = [x]\n    return x"
    (reply,) = await box.calls(source, "f", [[]])
    assert isinstance(reply, Raised | Died)


async def test_text_that_cannot_be_written_does_not_come_out(box):
    source = "def f(x):\n    if x: raise ValueError('\\ud800 \\N{GRINNING FACE}')\n    return ['\\udfff']"
    assert await box.calls(source, "f", [[True]]) == [Raised("ValueError", "? \N{GRINNING FACE}")]
    assert await box.calls(source, "f", [[False]]) == [Died()]
    assert await box.calls("def same(x): return x", "same", [["\N{GRINNING FACE} \\ud"]]) == [
        Value("\N{GRINNING FACE} \\ud")
    ]


@pytest.mark.parametrize(
    "said",
    [
        b'{"id": "ID", "value": NaN}',
        b'{"id": "ID", "value": 1e999}',
        b'{"id": "ID", "value": "\\ud800"}',
        b'{"id": "ID", "value": "\xff"}',
        b'{"id": "ID", "value": ' + b"9" * 5000 + b"}",
        b'{"id": "ID", "value": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"id": "ID", "value": 5, "raised": ["a", "b"]}',
        b'{"id": "ID", "raised": 5}',
        b'{"id": "ID"}',
        b'["ID", 5]',
        b"",
        '{"id": "ID", "value": 5}'.encode("utf-16-le"),
    ],
    ids=range(12),
)
async def test_a_reply_that_a_program_writes_itself_is_taken_for_no_more_than_a_value(box, said):
    source = f"""
import os, sys
SAID = {said!r}
def f():
    name = sys._getframe(2).f_locals["call"]["id"]
    os.write(3, SAID.replace(b"ID", name.encode()) + b"\\n")
    os._exit(0)
"""
    assert await box.calls(source, "f", [[]]) == [Died()]
    well = source.replace(f"SAID = {said!r}", 'SAID = b\'{"id": "ID", "value": 5}\'')
    assert await box.calls(well, "f", [[]]) == [Value(5)]


async def test_arguments_that_are_no_json_are_the_callers_fault(box):
    with pytest.raises(TypeError):
        await box.calls("def f(x): return x", "f", [[object()]])
    assert await box.calls("def f(x): return x", "f", [[1]]) == [Value(1)]
