"""Patches by their parts, trees of files, and what may not be written."""

import pytest

from fettle.errors import DataError
from fettle.issues.git import Repository
from fettle.issues.patches import files_of, joined, kind_of, languages_of, size_of
from fettle.issues.trees import Tree, tree_of
from tests.issues.conftest import MORE_TESTS, RIGHT, WRONG, History

HEAD = "diff --git a/calc.py b/calc.py\n--- a/calc.py\n+++ b/calc.py\n"
PATCH = f"{HEAD}@@ -1,3 +1,3 @@\n def add(a, b):\n-    return a - b\n+    return a + b\n \n"


def test_a_patch_by_its_files_and_lines(history: History):
    patch = Repository(history.path).diff("HEAD~1", "HEAD")
    files = files_of(patch)
    assert [file.path for file in files] == ["calc.py", "tests/test_calc.py"]
    assert files[0].removed == ("    return a - b",)
    assert files[0].added == ("    return a + b",)
    assert size_of(files[:1]) == 2
    assert joined(files) == patch


def test_lines_that_look_like_headers_are_lines():
    body = "--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@\n--- a\n+++ b\n same\n"
    (file,) = files_of(f"diff --git a/x b/x\n{body}")
    assert file.removed == ("-- a",)
    assert file.added == ("++ b",)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("src/calc.py", "source"),
        ("tests/data.py", "test"),
        ("src/test_calc.py", "test"),
        ("calc_test.py", "test"),
        ("conftest.py", "test"),
        ("docs/conf.py", "docs"),
        ("README.md", "docs"),
        ("third_party/x.py", "generated"),
        ("poetry.lock", "generated"),
        ("api_pb2.py", "generated"),
        ("contest.py", "source"),
    ],
)
def test_kinds_of_files(path, kind):
    assert kind_of(path) == kind


def test_the_language_of_most_files_comes_first():
    names = ["a.rs", "b.py", "c.py", "d.txt"]
    assert languages_of([files_of(f"diff --git a/{n} b/{n}\n")[0] for n in names]) == ("python", "rust")


def test_what_is_no_patch_is_refused():
    assert files_of(" \n") == []
    with pytest.raises(DataError, match="must be in git's format"):
        files_of("@@ -1 +1 @@\n-a\n+b\n")


def test_a_tree_after_a_patch_and_back(history: History):
    tree = tree_of(history.path, "HEAD~1")
    assert tree.text("calc.py") == WRONG
    after = tree.applied(PATCH)
    assert after.text("calc.py") == RIGHT
    assert tree.applied(tree.patch_to(after)).files == after.files
    gone = tree.with_files({"calc.py": None})
    assert "deleted file mode" in tree.patch_to(gone)
    assert tree.applied(tree.patch_to(gone)).files == gone.files


def test_a_patch_that_does_not_apply_is_refused_with_its_place(history: History):
    with pytest.raises(DataError, match=r"does not apply: patch failed: calc.py:1"):
        tree_of(history.path, "HEAD").applied(PATCH)


def test_a_patch_of_what_is_no_text_is_refused(history: History):
    binary = "diff --git a/b.bin b/b.bin\nindex 1..2 100644\nBinary files a/b.bin and b/b.bin differ\n"
    with pytest.raises(DataError, match=r"changes b.bin, which is no text: leave that file out"):
        tree_of(history.path, "HEAD").applied(binary)


@pytest.mark.parametrize("path", ["../calc.py", ".git/hooks/pre-commit", "/etc/passwd", "a/../../b"])
def test_a_patch_that_leads_elsewhere_is_refused(history: History, path):
    new = f"diff --git a/{path} b/{path}\nnew file mode 100644\n--- /dev/null\n+++ b/{path}\n@@ -0,0 +1 @@\n+x\n"
    with pytest.raises(DataError, match="leads out of the work tree"):
        tree_of(history.path, "HEAD").applied(new)


def test_nothing_is_written_through_a_link(history: History, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    link = f"diff --git a/l b/l\nnew file mode 120000\n--- /dev/null\n+++ b/l\n@@ -0,0 +1 @@\n+{outside}\n"
    through = "diff --git a/l/x b/l/x\nnew file mode 100644\n--- /dev/null\n+++ b/l/x\n@@ -0,0 +1 @@\n+x\n"
    with pytest.raises(DataError, match="beyond a symbolic link"):
        tree_of(history.path, "HEAD").applied(link + through)
    assert "l" not in tree_of(history.path, "HEAD").applied(link).files
    assert not list(outside.iterdir())


def test_what_is_written_is_a_repository_of_one_commit_that_knows_nothing_of_later(history: History, tmp_path):
    later = history.git("rev-parse", "HEAD")
    blob = history.git("rev-parse", "HEAD:tests/test_calc.py")
    folder = tmp_path / "problem"
    tree_of(history.path, "HEAD~1").write(folder)
    written = Repository(folder)
    assert len(list(written.main_line())) == 1
    for hash in (later, blob):
        with pytest.raises(DataError, match="cat-file"):
            written.content(hash)
    assert written.content("HEAD:calc.py") == WRONG
    with pytest.raises(DataError, match="is there already"):
        Tree({}).write(folder)
    assert MORE_TESTS not in (folder / "tests/test_calc.py").read_text()
