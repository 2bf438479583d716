"""What is asked, and replies that solve it: said in edits, they make what the patch makes."""

import pytest

from fettle.errors import DataError
from fettle.issues.edits import edited, edits_of
from fettle.issues.git import Repository
from fettle.issues.instances import Instance
from fettle.issues.questions import question, shown, slip, solution
from fettle.issues.trees import Tree, tree_of
from tests.issues.conftest import History

TWICE = "def a(x):\n    return x\n\n\ndef b(x):\n    return x\n"


def problem(history: History, before: dict[str, str], after: dict[str, str | None]) -> Instance:
    """One change, as a problem."""
    base = history.commit("before", dict(before))
    sha = history.commit("after", dict(after))
    patch = Repository(history.path).diff(base, sha)
    return Instance(instance_id="o__n-1", repo="o/n", base_commit=base, patch=patch, problem_statement="It is wrong.")


@pytest.mark.parametrize(
    ("after", "least"),
    [
        (TWICE.replace("    return x\n\n", "    return x + 1\n\n"), "def a(x):"),  # the line alone stands there twice
        (TWICE.replace("def b(x):", "def b(y):"), "def b(x):"),
        ("import os\n" + TWICE, "def a(x):"),
        (TWICE + "\n\ndef c():\n    pass\n", "def b(x):"),
        (TWICE.replace("def b(x):\n    return x\n", ""), "def b(x):"),
    ],
)
def test_a_solution_in_edits_makes_what_the_patch_makes(history, after, least):
    instance = problem(history, {"m.py": TWICE}, {"m.py": after})
    base = tree_of(history.path, instance.base_commit)
    reply = solution(instance, base)
    assert least in reply
    assert edited(base, edits_of(reply)).text("m.py") == after
    assert question(instance, base) == f'It is wrong.\n\n<file path="m.py">\n{TWICE}</file>'


def test_only_as_many_lines_as_tell_the_place(history):
    instance = problem(history, {"m.py": TWICE}, {"m.py": TWICE.replace("def b(x):", "def b(y):")})
    reply = solution(instance, tree_of(history.path, instance.base_commit))
    assert reply == '<edit path="m.py">\ndef b(x):\n=======\ndef b(y):\n</edit>'


@pytest.mark.parametrize("numbered", [True, False])
def test_a_new_file_is_an_edit_without_old_lines(history, numbered):
    more = {"m.py": f"import new\n{TWICE}", "parts/new.py": "x = 1\n", "parts/__init__.py": ""}
    instance = problem(history, {"m.py": TWICE}, more)
    base = tree_of(history.path, instance.base_commit)
    reply = solution(instance, base, numbered=numbered)
    assert '<edit path="parts/new.py">\n=======\nx = 1\n</edit>' in reply
    assert edited(base, edits_of(reply), shown=shown(instance)) == base.applied(instance.patch)
    assert edited(base, edits_of(slip(instance, base)), shown=shown(instance)).files == base.files


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("m.py", "m.py is there already: say which of its lines go"),
        ("m.py/x.py", "cannot be a new file"),
        ("parts", "cannot be a new file"),
        ("./new.py", "cannot be a new file"),
        (".env", "cannot be a new file"),
        ("n" * 201, "cannot be a new file"),
        ("../new.py", "leads out of the work tree"),
        ("tests/new.py", "decides what the tests say"),
        ("", "or name a new file"),
    ],
)
def test_a_file_that_cannot_be_new_is_refused(path, says):
    tree = Tree({"m.py": b"x = 1\n", "parts/n.py": b""})
    with pytest.raises(DataError, match=says):
        edited(tree, edits_of(f'<edit path="{path}">\n=======\nx = 2\n</edit>'))


@pytest.mark.parametrize("after", [{"m.py": None}, {"m.py": "x = 1\n", "setup.cfg": "[tool:pytest]\n"}])
def test_what_edits_cannot_say_is_refused(history, after):
    instance = problem(history, {"m.py": TWICE}, after)
    with pytest.raises(DataError, match="which no edit can"):
        solution(instance, tree_of(history.path, instance.base_commit))


@pytest.mark.parametrize(
    "after",
    [
        TWICE.replace("    return x\n\n", "    return x + 1\n\n"),
        TWICE.replace("def b(x):", "def b(y):").replace("def a(x):", "def a(z):\n    z = 1"),
        f"import os\n{TWICE}",
        f"{TWICE}\n\ndef c():\n    pass\n",
        TWICE.replace("def b(x):\n    return x\n", ""),
    ],
)
def test_a_solution_by_numbers_of_lines_makes_what_the_patch_makes(history, after):
    instance = problem(history, {"m.py": TWICE}, {"m.py": after})
    base = tree_of(history.path, instance.base_commit)
    reply = solution(instance, base, numbered=True)
    assert "path" not in reply
    assert "=======" not in reply
    assert edited(base, edits_of(reply), shown=shown(instance)).text("m.py") == after
    assert "\n2     return x\n" in question(instance, base, numbered=True)
    left = slip(instance, base)
    assert left.count("<edit lines=") == reply.count("<edit lines=")
    assert edited(base, edits_of(left), shown=shown(instance)).files == base.files


@pytest.mark.parametrize("lines", ["0", "3-2", "8", "6-7"])
def test_lines_that_are_not_there_are_refused(lines):
    tree = Tree({"m.py": TWICE.encode()})
    with pytest.raises(DataError, match=r"m.py has no lines \d+ to \d+"):
        edited(tree, edits_of(f'<edit path="m.py" lines="{lines}">\nx = 1\n</edit>'))
    with pytest.raises(DataError, match="0 files hold the lines of an edit that names none"):
        edited(tree, edits_of(f'<edit lines="{lines}">\nx = 1\n</edit>'), shown=["m.py"])


def test_an_edit_without_a_name_is_of_a_file_that_was_shown():
    tree = Tree({"m.py": b"x = 1\n", "n.py": b"x = 1\n"})
    reply = "<edit>\nx = 1\n=======\nx = 2\n</edit>"
    assert edited(tree, edits_of(reply), shown=["n.py"]).text("n.py") == "x = 2\n"
    with pytest.raises(DataError, match="2 files hold the lines of an edit that names none: name the file"):
        edited(tree, edits_of(reply))
