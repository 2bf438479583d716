"""Files of an episode: nothing that is named leads anywhere else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fettle.environments.tools import ToolMistake, Workspace
from fettle.environments.tools.workspace import MOST_CHARACTERS, MOST_FILES


@pytest.mark.parametrize(
    "path",
    [
        *("../secret.txt", "a/../../b", "/etc/passwd", "~/x", "..", ".", "", "//etc/passwd", "a/..", "./../x"),
        *("a\\..\\b", "a\x00b", "a\nb", "x" * 201, "~root", "/", "C:\\x"),
    ],
)
@pytest.mark.parametrize("method", ["read_file", "write_file"])
def test_a_path_that_leads_out_is_refused(path, method):
    space = Workspace({"secret.txt": "s"})
    with pytest.raises(ToolMistake):
        getattr(space, method)(path, *(["text"] if method == "write_file" else []))
    assert space.files == {"secret.txt": "s"}


@given(st.text(max_size=40))
def test_whatever_is_written_is_inside_or_nowhere(path):
    space = Workspace()
    try:
        space.write_file(path, "x")
    except ToolMistake:
        assert not space.files
    else:
        [name] = space.files
        assert not name.startswith("/")
        assert ".." not in name.split("/")
        assert space.read_file(path) == "x"


def test_files_are_listed_read_and_written():
    space = Workspace({"b.txt": "2", "notes/a.txt": "1"})
    assert space.list_files() == "b.txt\nnotes/a.txt"
    assert space.read_file("./notes//a.txt") == "1"
    assert space.write_file("b.txt", "three") == "b.txt holds 5 characters"
    assert space.read_file("b.txt") == "three"


def test_a_file_that_is_not_there_is_told_with_those_that_are():
    with pytest.raises(ToolMistake, match=r"the files are a\.txt"):
        Workspace({"a.txt": ""}).read_file("b.txt")


def test_files_have_limits():
    space = Workspace()
    with pytest.raises(ToolMistake, match="at most 100000 characters"):
        space.write_file("a", "x" * (MOST_CHARACTERS + 1))
    for place in range(MOST_FILES):
        space.write_file(f"{place}", "x")
    with pytest.raises(ToolMistake, match="at most 64 files"):
        space.write_file("one-more", "x")


@pytest.mark.parametrize(("first", "second"), [("a", "a/b"), ("a/b", "a")])
def test_a_name_is_a_file_or_a_folder(first, second):
    space = Workspace({first: "x"})
    with pytest.raises(ToolMistake, match="both a file and a folder"):
        space.write_file(second, "y")
