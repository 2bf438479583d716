"""Whatever is done to a log afterwards is found, to its last line too."""

import pytest

from fettle.router.audit import AUDIT, HEAD, append, entry, read_audit


@pytest.fixture
def lines(tmp_path):
    for number in range(3):
        append(tmp_path, entry("promoted", who="me", why="", version=number))
    return (tmp_path / AUDIT).read_text().splitlines(keepends=True)


def left(folder, *lines):
    (folder / AUDIT).write_text("".join(lines))
    return read_audit(folder).broken


def test_a_last_line_that_was_altered_or_taken_out_is_found(tmp_path, lines):
    assert read_audit(tmp_path).broken == ()
    assert left(tmp_path, *lines[:2], lines[2].replace("me", "you")) == (3,)
    assert left(tmp_path, *lines[:2]) == (2,)
    assert left(tmp_path) == (1,)
    assert left(tmp_path, *lines) == ()


def test_it_is_found_still_when_others_were_added(tmp_path, lines):
    left(tmp_path, *lines[:2], lines[2].replace("me", "you"))
    append(tmp_path, entry("promoted", who="me", why="", version=3))
    append(tmp_path, entry("promoted", who="me", why="", version=4))
    assert read_audit(tmp_path).broken == (4,), "the line that should follow the altered one"


def test_a_hash_that_was_taken_away_is_found(tmp_path, lines):
    (tmp_path / HEAD).unlink()
    assert read_audit(tmp_path).broken == (3,)


def test_one_who_was_killed_before_the_hash_was_written_altered_nothing(tmp_path, lines):
    head = (tmp_path / HEAD).read_text()
    append(tmp_path, entry("promoted", who="me", why="", version=3))
    (tmp_path / HEAD).write_text(head)
    assert read_audit(tmp_path).broken == ()
    append(tmp_path, entry("promoted", who="me", why="", version=4))
    assert read_audit(tmp_path).broken == ()
