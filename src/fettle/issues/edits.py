"""Edits as a model proposes them: lines that go, and lines that come in their place."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from fettle.errors import DataError
from fettle.issues.patches import kind_of
from fettle.issues.trees import Tree, check_inside

EDIT = re.compile(
    r"<edit(?:\s+path=\"([^\"\n]*)\")?(?:\s+lines=\"(\d{1,6})(?:-(\d{1,6}))?\")?\s*>\n?(.*?)</edit>", re.DOTALL
)
NEW = re.compile(r"(?=.{1,200}$)[A-Za-z0-9_-][A-Za-z0-9_.-]*(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*")
"""Names that a new file may have."""
BETWEEN = re.compile(r"^=======[ \t]*\n", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Edit:
    """Lines of one file in the place of others, or a new file."""

    path: str
    """Empty where the edit does not say; then the old lines must tell."""
    old: str
    """Empty for a new file."""
    new: str
    lines: tuple[int, int] | None = None
    """The first and the last line that goes, from 1, where they are told by number and not by ``old``."""

    @property
    def is_new(self) -> bool:
        """Whether the file is to be made."""
        return self.lines is None and not self.old.strip()


def edits_of(reply: str) -> list[Edit]:
    """The edits in a reply.

    Raises:
        DataError: there is none, or one of them is not in the form.
    """
    blocks = EDIT.findall(reply)
    if not blocks or reply.count("<edit") != len(blocks):
        raise DataError("there is no edit: give <edit path=...>, the old lines, =======, the new lines, </edit>")
    return [_edit(*block) for block in blocks]


def without_edits(reply: str) -> str:
    """What a reply says beside its edits."""
    return EDIT.sub("", reply).strip()


def _edit(path: str, first: str, last: str, body: str) -> Edit:
    body = body if not body or body.endswith("\n") else f"{body}\n"
    if first:
        return Edit(path.strip(), "", body, (int(first), int(last or first)))
    parts = BETWEEN.split(body)
    if len(parts) != 2:
        raise DataError("an edit has one line of ======= between its old lines and its new ones")
    if not (parts[0].strip() or path.strip()):
        raise DataError("an edit must say which lines go, or name a new file: give some of those that are there")
    return Edit(path.strip(), parts[0], parts[1])


def edited(tree: Tree, edits: Sequence[Edit], *, shown: Sequence[str] = ()) -> Tree:
    """The files after edits, each of which finds its old lines exactly once, as they are or but for their layout.

    An edit that names no file is of the one that holds its old lines, among those that were ``shown``, if any were.
    Numbers of lines are those of the files before all edits.

    Raises:
        DataError: one does not, or is of a file that must not be changed.
    """
    for edit in sorted(edits, key=_place, reverse=True):
        path = edit.path or _only(tree, edit, shown or list(tree.files))
        check_inside(path)
        if kind_of(path) == "test":
            raise DataError(f"{path} decides what the tests say, and is not to be changed")
        if edit.is_new:
            tree = tree.with_files({_new(tree, path): edit.new.encode()})
            continue
        text = tree.text(path)
        if text is None:
            raise DataError(f"there is no file {path} with text in it")
        tree = tree.with_files({path: _replaced(path, text, edit).encode()})
    return tree


def _new(tree: Tree, path: str) -> str:
    """The name of a file that can be made."""
    if path in tree.files:
        raise DataError(f"{path} is there already: say which of its lines go")
    folders = {str(folder) for folder in PurePosixPath(path).parents}
    if not NEW.fullmatch(path) or folders & set(tree.files) or any(each.startswith(f"{path}/") for each in tree.files):
        raise DataError(f"{path!r} cannot be a new file: name one in letters, digits, _ and -, in a folder")
    return path


def _place(edit: Edit) -> tuple[int, int]:
    """By which edits by number are made from the last line to the first, so that numbers go on being right."""
    return edit.lines or (0, 0)


def _only(tree: Tree, edit: Edit, among: Sequence[str]) -> str:
    """The one file that an edit can be of."""
    holders = [path for path in among if kind_of(path) != "test" and _spans(tree.text(path) or "", edit)]
    if len(holders) != 1:
        raise DataError(f"{len(holders)} files hold the lines of an edit that names none: name the file")
    return holders[0]


def _replaced(path: str, text: str, edit: Edit) -> str:
    spans = _spans(text, edit)
    if len(spans) != 1 and edit.lines:
        raise DataError(f"{path} has no lines {edit.lines[0]} to {edit.lines[1]}: give numbers of lines that are there")
    if len(spans) != 1:
        raise DataError(f"{path} holds the old lines of an edit {len(spans)} times: give lines that are there once")
    start, end = spans[0]
    lines = text.splitlines(keepends=True)
    return "".join((*lines[:start], edit.new, *lines[end:]))


def _spans(text: str, edit: Edit) -> list[tuple[int, int]]:
    """Which lines of a text an edit may be of."""
    if edit.lines is None:
        return _places(text, edit.old)
    first, last = edit.lines
    return [(first - 1, last)] if 1 <= first <= last <= len(text.splitlines()) else []


def _places(text: str, old: str) -> list[tuple[int, int]]:
    """Where lines stand, from a line to before another: exactly, or else but for white space at their sides."""
    lines, wanted = text.splitlines(), old.removesuffix("\n").split("\n")
    starts = range(len(lines) - len(wanted) + 1)
    exact = [at for at in starts if lines[at : at + len(wanted)] == wanted]
    bare = [line.strip() for line in wanted]
    found = exact or [at for at in starts if [line.strip() for line in lines[at : at + len(wanted)]] == bare]
    return [(at, at + len(wanted)) for at in found]
