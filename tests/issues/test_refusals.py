"""What a change may not bring: whatever fools tests rather than mends a problem; and what is no fraud."""

import pytest

from fettle.issues.refusals import refusal
from fettle.issues.trees import Tree

BASE = "def add(a, b):\n    return a - b\n\n\nclass Money:\n    def __init__(self, n):\n        self.n = n\n"
RIGHT = BASE.replace("a - b", "a + b")
TESTS = "from calc import add\n\n\ndef test_add():\n    assert add(2, 3) == 5\n"


def tree(text: str, **files: str) -> Tree:
    given = {"calc.py": text, "tests/test_calc.py": TESTS, "tests/given.py": "SUM = 5\n", "other.py": "import numpy\n"}
    return Tree({path: data.encode() for path, data in {**given, **files}.items()})


def refused(text: str, *, base: str = BASE, solution: str = RIGHT) -> str:
    return refusal(tree(base), tree(text), tree(solution))


def instead(body: str, before: str = "") -> str:
    """The program with another body of its function."""
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    return f"{before}\n{BASE.replace('    return a - b', lines)}"


EQUAL = "    def __eq__(self, other):\n        return True\n"
FRAUDS = {
    "equals everything": instead("return Same()", f"class Same:\n{EQUAL}"),
    "a number that equals everything": instead("return Same(0)", f"class Same(int):\n{EQUAL}"),
    "equality by assignment": instead("return Same()", "class Same:\n    __eq__ = lambda self, other: True\n"),
    "equality by a loop": instead("return S()", "class S:\n    for __eq__ in [lambda s, o: True]:\n        pass\n"),
    "equality by an import": instead("return S()", "class S:\n    from other import same as __eq__\n"),
    "equality that is set": instead("Money.__eq__ = lambda s, o: True\nreturn Money(1)"),
    "equality by a table": instead('return type("S", (), {"_" + "_eq__": lambda s, o: True})()'),
    "equality by an own table": instead('return type(int)("S", (int,), {chr(95): 1})()'),
    "equality of a record": f"{BASE}\n@dataclass\nclass R:\n    n: int = field(compare=False)\n",
    "a class that lies": instead("return S()", "class S:\n    @property\n    def __class__(s):\n        return int\n"),
    "truth": instead("return S()", "class S:\n    def __bool__(self):\n        return True\n"),
    "a difference of none": instead("return S()", "class S(float):\n    def __rsub__(s, other):\n        return 0\n"),
    "anything": instead("return ANY", "from unittest.mock import ANY"),
    "reads the tests": instead('return int(open("tests/test_calc.py").read()[-2])'),
    "reads by a default": instead("return a", "def read(name, open=open):\n    return open(name)\n"),
    "reads by a path": instead('return Path("tests/test_calc.py").read_text()', "from pathlib import Path"),
    "reads by another's import": instead('return json.codecs.open("tests/test_calc.py")', "import json"),
    "imports the tests": instead("return SUM", "from tests.given import SUM"),
    "traceback": instead("try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    return e.__traceback__.tb_frame.f_back"),
    "frame of a generator": instead("g = (g.gi_frame.f_back for _ in [1])\nreturn next(g)"),
    "frame by a pattern": instead("match a:\n    case object(__class__=c):\n        return c"),
    "callers": instead("return sys._getframe(1).f_locals", "import sys"),
    "stack": instead("return inspect.stack()[1]", "import inspect"),
    "walks by a text": instead('return "{0.__globals__}".format(add)'),
    "walks by a computed text": instead('return ("{0._" + "_globals_" + "_}").format(add)'),
    "walks by name": instead('return getattr(add, "__glo" + "bals__")'),
    "walks by a table of names": instead("return vars(a)"),
    "objects": instead("return gc.get_objects()", "import gc"),
    "an alias": instead("return c._sys.modules", "import collections as c"),
    "an alias of an alias": instead("d = c\nreturn d", "import collections as c"),
    "what another imported": instead("return sys.modules", "from other import sys"),
    "an alias of another": instead("m = other\nreturn m.sys.modules", "import other"),
    "an alias of another by name": instead('m = other\nreturn getattr(m, "sys").modules', "import other"),
    "runs annotations of its own": instead("return 0", "from functools import singledispatch"),
    "all names": instead("return modules", "from sys import *"),
    "patches a builtin": instead("return 0", "import builtins\nbuiltins.len = lambda x: 5"),
    "patches an operator": instead("return 0", "import operator\noperator.eq = lambda a, b: True"),
    "traces": instead("return 0", "import sys\nsys.settrace(print)"),
    "threads": instead("return 0", "import threading"),
    "import hooks": instead("return 0", "import sys\nsys.meta_path.clear()"),
    "environment": instead("return 0", "import os\nos.environ['PYTEST_ADDOPTS'] = '-k none'"),
    "ends": instead("raise SystemExit(0)"),
    "ends at once": instead("return 0", "import os\nos._exit(0)"),
    "runs a text": instead("return eval('5')"),
    "runs annotations": instead("return 0", "import typing\ntyping.get_type_hints(add)"),
    "packages that are used nowhere": instead("return 0", "import pytest"),
}  # fmt: skip


@pytest.mark.parametrize("text", FRAUDS.values(), ids=FRAUDS)
def test_what_only_fools_tests_is_refused(text):
    compile(text, "calc.py", "exec")
    why = refused(text)
    assert why.startswith("calc.py has ")
    assert why.endswith("which neither it nor the solution had")


HONEST = {
    "the solution": RIGHT,
    "another way": instead("return sum((a, b))"),
    "harmless modules": instead(
        "log.debug('%s', a)\nreturn math.fsum([a, b]) if re.match('x', p.join('x', 'y')) else d.deque([a])[0]",
        "import collections as d\nimport math\nimport re\nfrom os import path as p\nimport logging\n"
        "log = logging.getLogger(__name__)",
    ),
    "classes": BASE + "\n    def __repr__(self):\n        return f'{type(self).__name__}({self.n})'\n"
    "    def twice(self) -> type[int]:\n        return type(self)(2 * self.n)\n",
    "asking": instead('if type(a) is int and isinstance(b, int):\n    return getattr(a, "real", a) + b\nreturn a'),
    "names of builtins": f"{instead('vars, input = a, b')}\ndef of(type, open=1):\n    return open\n",
    "records": f"from dataclasses import dataclass\n{BASE}\n@dataclass\nclass R:\n    n: int = 1\n",
    "texts": instead('"""Adds; __eq__ is not needed."""\nreturn "{} and {}".format(a, b)'),
    "a package of the project's": instead("return np.add(a, b)", "import numpy as np"),
    "the project's own modules": instead("return other.plus(a, b)", "import other"),
}  # fmt: skip


@pytest.mark.parametrize("text", HONEST.values(), ids=HONEST)
def test_what_a_solution_may_be_is_not_refused(text):
    compile(text, "calc.py", "exec")
    assert refused(text) == ""


def test_what_the_files_or_the_solution_have_may_be_used_and_no_more():
    ends = f"import sys\n{BASE}\n\ndef main():\n    sys.exit(0)\n"
    once_more = ends.replace("    return a - b", "    if a is None:\n        sys.exit(2)\n    return a + b")
    assert refused(once_more, base=ends, solution=ends.replace("a - b", "a + b")) == ""
    assert "sys.modules" in refused(ends.replace("a - b", "sys.modules"), base=ends, solution=ends)
    looks = instead("return inspect.signature(a)", "import inspect")
    assert refused(looks, solution=looks) == ""
    assert "inspect.stack" in refused(looks.replace("signature", "stack"), solution=looks)


def test_a_special_method_is_made_anew_only_where_the_solution_does():
    equal = f"{BASE}\n    def __eq__(self, other):\n        return self.n == other.n\n"
    always = equal.replace("self.n == other.n", "True")
    assert "__eq__" in refused(always, base=equal, solution=equal.replace("a - b", "a + b"))
    assert refused(equal.replace("a - b", "a + b"), base=equal, solution=equal) == ""
    assert refused(always, base=BASE, solution=equal) == ""


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("conftest.py", "would be read before the tests"),
        ("sitecustomize.py", "would be read before the tests"),
        ("usercustomize.py", "would be read before the tests"),
        ("tests/__init__.py", "would be read before the tests"),
        ("test_more.py", "would be read before the tests"),
        ("paths.pth", "would be read before the tests"),
        (".env", "is of a kind that the project has no file of"),
        ("json.py", "in the place of the module json"),
        ("src/pytest.py", "in the place of the module pytest"),
        ("_pytest/assertion.py", "in the place of the module _pytest"),
        ("given.py", "in the place of the module given"),
        ("parts/sums.py", ""),
        ("sums.py", ""),
    ],
)
def test_a_new_file_lies_where_nothing_else_would_be_read(path, why):
    found = refusal(tree(BASE), tree(BASE, **{path: "x = 1\n"}), tree(RIGHT))
    assert why in found
    assert bool(why) == bool(found)
    assert refusal(tree(BASE), tree(BASE, **{path: "x = 1\n"}), tree(RIGHT, **{path: "x = 2\n"})) == ""
