"""A file is there whole, or as it was."""

import pytest

from fettle.errors import StorageError
from fettle.tracking import write_atomically
from tests.disks import full_disk


@pytest.mark.parametrize("contents", ["a new recipe: ü\r\n", b"\x89PNG\x00", ""])
def test_it_replaces_what_was_there_and_leaves_nothing_else(tmp_path, contents):
    path = tmp_path / "file"
    write_atomically(path, "what was there")
    write_atomically(path, contents)
    assert path.read_bytes() == (contents.encode() if isinstance(contents, str) else contents)
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_what_was_there(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, "what was there")
    with (
        full_disk(room=100),
        pytest.raises(StorageError, match=r"file could not be written \(File too large\): see"),
    ):
        write_atomically(path, "x" * 1000)
    assert path.read_text() == "what was there"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_gone(tmp_path):
    with pytest.raises(StorageError, match="could not be written"):
        write_atomically(tmp_path / "gone" / "file", "x")
