"""Edits as a model proposes them: lines that go, and lines that come in their place."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from fettle.errors import DataError
from fettle.issues.patches import kind_of
from fettle.issues.trees import Tree, check_inside

EDIT = re.compile(r"<edit(?:\s+path=\"([^\"\n]*)\")?\s*>\n?(.*?)</edit>", re.DOTALL)
BETWEEN = re.compile(r"^=======[ \t]*\n", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Edit:
    """Lines of one file in the place of others."""

    path: str
    """Empty where the edit does not say; then the old lines must tell."""
    old: str
    new: str


def edits_of(reply: str) -> list[Edit]:
    """The edits in a reply.

    Raises:
        DataError: there is none, or one of them is not in the form.
    """
    blocks = EDIT.findall(reply)
    if not blocks or reply.count("<edit") != len(blocks):
        raise DataError("there is no edit: give <edit path=...>, the old lines, =======, the new lines, </edit>")
    return [_edit(path, body) for path, body in blocks]


def _edit(path: str, body: str) -> Edit:
    parts = BETWEEN.split(body if body.endswith("\n") else f"{body}\n")
    if len(parts) != 2:
        raise DataError("an edit has one line of ======= between its old lines and its new ones")
    if not parts[0].strip():
        raise DataError("an edit must say which lines go: give some of those that are there")
    return Edit(path.strip(), *parts)


def edited(tree: Tree, edits: Sequence[Edit], *, shown: Sequence[str] = ()) -> Tree:
    """The files after edits, each of which finds its old lines exactly once, as they are or but for their layout.

    An edit that names no file is of the one that holds its old lines, among those that were ``shown``, if any were.

    Raises:
        DataError: one does not, or is of a file that must not be changed.
    """
    for edit in edits:
        path = edit.path or _only(tree, edit.old, shown or list(tree.files))
        check_inside(path)
        if kind_of(path) == "test":
            raise DataError(f"{path} decides what the tests say, and is not to be changed")
        text = tree.text(path)
        if text is None:
            raise DataError(f"there is no file {path} with text in it")
        tree = tree.with_files({path: _replaced(path, text, edit).encode()})
    return tree


def _only(tree: Tree, old: str, among: Sequence[str]) -> str:
    """The one file that holds some lines."""
    holders = [path for path in among if kind_of(path) != "test" and _places(tree.text(path) or "", old)]
    if len(holders) != 1:
        raise DataError(f"{len(holders)} files hold the old lines of an edit that names none: name the file")
    return holders[0]


def _replaced(path: str, text: str, edit: Edit) -> str:
    places = _places(text, edit.old)
    if len(places) != 1:
        raise DataError(f"{path} holds the old lines of an edit {len(places)} times: give lines that are there once")
    start, end = places[0]
    lines = text.splitlines(keepends=True)
    return "".join((*lines[:start], edit.new, *lines[end:]))


def _places(text: str, old: str) -> list[tuple[int, int]]:
    """Where lines stand, from a line to before another: exactly, or else but for white space at their sides."""
    lines, wanted = text.splitlines(), old.removesuffix("\n").split("\n")
    starts = range(len(lines) - len(wanted) + 1)
    exact = [at for at in starts if lines[at : at + len(wanted)] == wanted]
    bare = [line.strip() for line in wanted]
    found = exact or [at for at in starts if [line.strip() for line in lines[at : at + len(wanted)]] == bare]
    return [(at, at + len(wanted)) for at in found]
