"""Which problems their tests tell; what a proposal comes to; and tests that are tampered with."""

import pytest

from fettle.config.issues import Mining, Validation
from fettle.errors import ConfigError
from fettle.issues.git import Repository
from fettle.issues.instances import Instance
from fettle.issues.mining import mine
from fettle.issues.records import Tracker
from fettle.issues.testing import Verdicts, verdicts
from fettle.issues.trees import Tree, tree_of
from fettle.issues.validation import resolved, scored_tree, validated, with_tests
from fettle.sandbox import sandbox
from tests.issues.conftest import MORE_TESTS, RIGHT, TESTS, WRONG, History

SETTINGS = Validation(seconds=30)
FILES = ["tests/test_calc.py"]
INI = "[tool:pytest]\nminversion = 2.0\n"


def mined(history: History) -> list[Instance]:
    return mine(Repository(history.path), Tracker(), Mining()).instances


async def checked(history: History, **settings):
    given = SETTINGS.model_copy(update=settings)
    return await validated(mined(history), history.path, sandbox(given.sandbox), given)


async def run(tree: Tree, **settings):
    given = SETTINGS.model_copy(update=settings)
    return await verdicts(sandbox(given.sandbox), tree, FILES, given)


async def test_what_fails_before_and_passes_after_tells(history):
    (instance,) = (await checked(history)).instances
    assert instance.FAIL_TO_PASS == ("tests/test_calc.py::test_add",)
    assert instance.PASS_TO_PASS == ("tests/test_calc.py::test_double",)


async def test_what_tests_do_not_tell_or_the_judge_does_not_pay_is_dropped_for_a_reason(history):
    triple = RIGHT + "\n\ndef triple(a):\n    return 3 * a\n"
    told = '"""Sums."""\n' + triple
    ini = "from calc import add\n\n\ndef test_it(pytestconfig):\n    assert add(0, 0) == 0\n"
    ini += "    assert pytestconfig.getini('minversion') == '2.0'\n"
    says = "import calc\n\n\ndef test_it():\n    assert calc.__doc__\n"
    one = "def test_it():\n    assert True\n"
    history.commit("Fix tripling, which is missing", {"calc.py": triple, FILES[0]: one})
    history.commit("Fix words, which are missing", {"calc.py": told, "tests/test_doc.py": says})
    history.commit(
        "Fix settings of all tests", {"calc.py": told + "\n\nX = 1\n", "setup.cfg": INI, "tests/test_c.py": ini}
    )
    history.commit("Fix what is not there", {"calc.py": told, "tests/test_d.py": f"import not_installed\n\n\n{one}"})
    history.commit("Fix doubling of sums", {"calc.py": told.replace("a * 2", "a + a + 0")})
    found = await checked(history)
    assert [one.number for one in found.instances] == ["7"]
    assert found.dropped == {"no test tells": 1, "cannot be built": 1, "not paid": 2, "no tests": 1}
    assert "its solution leaves the program as it was" in found.reasons.values()
    assert "its solution changes setup.cfg, which no proposal may" in found.reasons.values()


async def test_what_differs_between_two_runs_tells_nothing(history):
    (instance,) = mined(history)
    before = [Verdicts({"kept": "passed", "new": "failed", "shaky": "failed"})] * 2
    after = [Verdicts({"kept": "passed", "new": "passed", "shaky": shaky}) for shaky in ("passed", "failed")]
    found = with_tests(instance, before, after).instance
    assert (found.FAIL_TO_PASS, found.PASS_TO_PASS) == (("new",), ("kept",))
    shaky = [Verdicts({"kept": status, "new": "failed"}) for status in ("passed", "failed")]
    found = with_tests(instance, shaky, after[:1] * 2).instance
    assert "new" in found.FAIL_TO_PASS
    assert "kept" not in found.PASS_TO_PASS + found.FAIL_TO_PASS


async def test_only_the_right_change_resolves_a_problem(history):
    (instance,) = (await checked(history)).instances
    base = tree_of(history.path, instance.base_commit)
    for text, verdict in [
        (RIGHT, (1.0, True)),
        (WRONG, (0.0, True)),
        (RIGHT.replace("a * 2", "a * 3"), (1.0, False)),
        ("def add(:\n", (0.0, False)),
    ]:
        tree = scored_tree(instance, base, base.with_files({"calc.py": text.encode()}))
        assert resolved(instance, await run(tree)) == verdict, text


async def test_tests_are_those_of_the_problem_whatever_a_proposal_makes_of_them(history):
    (instance,) = (await checked(history)).instances
    base = tree_of(history.path, instance.base_commit)
    easy = b"def test_add():\n    pass\n\ndef test_double():\n    pass\n"
    hook = b"def pytest_runtest_call(item):\n    item.obj = lambda: None\n"
    proposed = base.with_files({FILES[0]: easy, "conftest.py": hook, "pytest.ini": b"[pytest]\naddopts = -k none\n"})
    tree = scored_tree(instance, base, proposed)
    assert tree.text(FILES[0]) == MORE_TESTS
    assert "conftest.py" not in tree.files
    assert resolved(instance, await run(tree)) == (0.0, True)


ALL_PASS = """
from _pytest.reports import TestReport
made = TestReport.from_item_and_call.__func__
def passed(cls, item, call):
    report = made(cls, item, call)
    report.outcome = "passed"
    return report
TestReport.from_item_and_call = classmethod(passed)
"""


@pytest.mark.parametrize(
    "cheat",
    [
        "import os; os._exit(0)",
        "import sys; sys.exit(0)",
        "import os; os.kill(os.getppid(), 9)",
        "import atexit, os; print('{}', file=open('/proc/%d/fd/1' % os.getppid(), 'w'))",
        "raise SystemExit(0)",
        ALL_PASS,
    ],
    ids=["end at once", "exit", "end the parent", "speak for the parent", "system exit", "all reports pass"],
)
async def test_a_cheat_is_not_believed(history, cheat):
    base = tree_of(history.path, "HEAD")
    found = await run(base.with_files({"calc.py": f"{cheat}\n{WRONG}".encode()}))
    assert "tests/test_calc.py::test_add" not in found.passed


READS = """
from pathlib import Path
for place in Path.cwd().rglob("*"):
    if place.is_file() and b"double(2)" in place.read_bytes() and place.name != "calc.py":
        double = lambda n: 4
"""


async def test_what_tests_say_is_in_no_file_while_they_run(history):
    base = tree_of(history.path, "HEAD")
    data = {"tests/conftest.py": b"import pytest\n\n@pytest.fixture\ndef four():\n    return 4\n", "tests/n.txt": b"4"}
    tests = f"{TESTS}\n\ndef test_data(four):\n    from pathlib import Path\n"
    tests += "    assert int((Path(__file__).parent / 'n.txt').read_text()) == four\n"
    wrong = "def add(a, b):\n    return 0\n\n\ndef double(n):\n    return 0\n"
    found = await run(base.with_files({**data, FILES[0]: tests.encode(), "calc.py": f"{wrong}{READS}".encode()}))
    assert found.statuses == {f"{FILES[0]}::test_double": "failed", f"{FILES[0]}::test_data": "passed"}


async def test_tests_that_do_not_end_are_not_waited_for(history):
    base = tree_of(history.path, "HEAD")
    found = await run(base.with_files({"calc.py": b"while True:\n    pass\n"}), seconds=1.0)
    assert found.trouble == "the tests took longer than 1 s"


async def test_a_plugin_that_is_not_installed_is_an_error(history):
    with pytest.raises(ConfigError, match="pytest_nonesuch cannot be imported"):
        await run(tree_of(history.path, "HEAD"), plugins=("pytest_nonesuch",))
