"""What a problem asks, and the reply that solves it."""

from collections.abc import Sequence
from difflib import SequenceMatcher

from fettle.errors import DataError
from fettle.issues.edits import Edit, edited, edits_of
from fettle.issues.instances import Instance
from fettle.issues.patches import files_of
from fettle.issues.testing import is_of_tests
from fettle.issues.trees import Tree


def question(instance: Instance, base: Tree, *, numbered: bool = False) -> str:
    """The statement, with the files that the solution changes, as they were; each line after its number, if so."""
    texts = {path: base.text(path) or "" for path in shown(instance)}
    if numbered:
        texts = {path: numbers(text) for path, text in texts.items()}
    files = "\n".join(f'<file path="{path}">\n{text}</file>' for path, text in texts.items())
    return f"{instance.problem_statement}\n\n{files}"


def numbers(text: str, first: int = 1) -> str:
    r"""Lines with their numbers.

    >>> numbers("a\nb\n")
    '1 a\n2 b\n'
    """
    return "".join(f"{at} {line}\n" for at, line in enumerate(text.splitlines(), first))


def shown(instance: Instance) -> list[str]:
    """The files that a question shows: those that the solution changes."""
    return [file.path for file in files_of(instance.patch) if not file.is_new]


def solution(instance: Instance, base: Tree, *, numbered: bool = False) -> str:
    """The reply that makes the solution of a file: as few lines as tell where they are.

    Where lines are ``numbered``, it tells them so, and does not say which file if one alone is shown.

    Raises:
        DataError: it cannot be said in edits, as a new file cannot.
    """
    why = beyond_edits(instance)
    if why:
        raise DataError(f"{instance.instance_id} {why}, which no edit can")
    after = base.applied(instance.patch)
    made = [file.path for file in files_of(instance.patch) if file.is_new]
    edits = [Edit(path, "", after.text(path) or "") for path in made]
    edits += _by_number(instance, base, after) if numbered else _by_lines(instance, base)
    if edited(base, edits).files != after.files:
        raise DataError(f"{instance.instance_id} changes what edits of lines cannot")
    return "\n".join(_said(one, named=not numbered or len(shown(instance)) > 1) for one in edits)


def beyond_edits(instance: Instance) -> str:
    """What a solution does that no edits can; empty where they can do all of it."""
    for file in files_of(instance.patch):
        if file.is_gone or file.is_binary:
            return f"{'deletes' if file.is_gone else 'changes the bytes of'} {file.path}"
        if is_of_tests(file.path):
            return f"changes {file.path}, which decides what tests say"
    return ""


def slip(instance: Instance, base: Tree) -> str:
    """A reply in the same form that mends nothing: the lines that are wrong, told by number, come again as they are.

    Raises:
        DataError: the solution cannot be said in edits.
    """
    edits = [edit for edit in edits_of(solution(instance, base, numbered=True)) if not edit.is_new]
    if not edits:
        raise DataError(f"{instance.instance_id} only makes files, of which nothing can come again as it is")
    named = len(shown(instance)) > 1
    return "\n".join(_said(_as_it_is(base, one, shown(instance)), named=named) for one in edits)


def _as_it_is(base: Tree, edit: Edit, paths: Sequence[str]) -> Edit:
    path = edit.path or paths[0]
    assert edit.lines is not None  # as it was told by number
    first, last = edit.lines
    lines = (base.text(path) or "").splitlines(keepends=True)[first - 1 : last]
    return Edit(path, "", "".join(lines), edit.lines)


def _said(edit: Edit, *, named: bool) -> str:
    path = f' path="{edit.path}"' if named or edit.is_new else ""
    if edit.lines is None:
        return f"<edit{path}>\n{edit.old}=======\n{edit.new}</edit>"
    first, last = edit.lines
    return f'<edit{path} lines="{first if first == last else f"{first}-{last}"}">\n{edit.new}</edit>'


def _by_number(instance: Instance, base: Tree, after: Tree) -> list[Edit]:
    edits = []
    for path in shown(instance):
        old, new = ((tree.text(path) or "").splitlines(keepends=True) for tree in (base, after))
        for kind, start, end, begin, stop in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
            if kind == "insert" and start:  # a line beside it goes and comes again
                start, begin = start - 1, begin - 1
            elif kind == "insert":
                end, stop = 1, stop + 1
            if kind != "equal":
                edits.append(Edit(path, "", "".join(new[begin:stop]), (start + 1, end)))
    return edits


def _by_lines(instance: Instance, base: Tree) -> list[Edit]:
    edits: list[Edit] = []
    tree = base
    for file in files_of(instance.patch):
        for hunk in () if file.is_new else file.hunks:
            edit = next((each for each in _edits(file.path, hunk) if _is_possible(tree, each)), None)
            if edit is None:
                raise DataError(f"{instance.instance_id} changes lines of {file.path} that stand there more than once")
            edits.append(edit)
            tree = edited(tree, [edit])
    return edits


def _edits(path: str, hunk: Sequence[str]) -> list[Edit]:
    """Ways to say a part: its changed lines alone, then with one line more on each side, up to all there are."""
    changed = [at for at, line in enumerate(hunk) if line[0] != " "]
    ways = []
    for more in range(len(hunk)):
        part = hunk[max(0, changed[0] - more) : changed[-1] + 1 + more]
        old, new = ("".join(f"{line[1:]}\n" for line in part if line[0] in signs) for signs in ("- ", "+ "))
        ways.append(Edit(path, old, new))
    return [way for way in ways if way.old.strip()]


def _is_possible(tree: Tree, edit: Edit) -> bool:
    try:
        edited(tree, [edit])
    except DataError:
        return False
    return True
