"""What a problem asks, and the reply that solves it."""

from collections.abc import Sequence

from fettle.errors import DataError
from fettle.issues.edits import Edit, edited
from fettle.issues.instances import Instance
from fettle.issues.patches import files_of
from fettle.issues.trees import Tree


def question(instance: Instance, base: Tree) -> str:
    """The statement, with the files that the solution changes, as they were."""
    files = "\n".join(f'<file path="{path}">\n{base.text(path) or ""}</file>' for path in shown(instance))
    return f"{instance.problem_statement}\n\n{files}"


def shown(instance: Instance) -> list[str]:
    """The files that a question shows: those that the solution changes."""
    return [file.path for file in files_of(instance.patch) if not file.is_new]


def solution(instance: Instance, base: Tree, *, named: bool = True) -> str:
    """The reply that makes the solution of a file: as few lines as tell where they are.

    Unless ``named``, it does not say which file where one alone is shown.

    Raises:
        DataError: it cannot be said in edits, as a new file cannot.
    """
    edits: list[Edit] = []
    tree = base
    for file in files_of(instance.patch):
        if file.is_new or file.is_gone:
            raise DataError(f"{instance.instance_id} makes or deletes {file.path}, which no edit can")
        for hunk in file.hunks:
            edit = next((each for each in _edits(file.path, hunk) if _is_possible(tree, each)), None)
            if edit is None:
                raise DataError(f"{instance.instance_id} changes lines of {file.path} that stand there more than once")
            edits.append(edit)
            tree = edited(tree, [edit])
    if tree.files != base.applied(instance.patch).files:
        raise DataError(f"{instance.instance_id} changes what edits of lines cannot")
    say_which = named or len(shown(instance)) > 1
    return "\n".join(_said(one, say_which) for one in edits)


def _said(edit: Edit, say_which: bool) -> str:
    tag = f'<edit path="{edit.path}">' if say_which else "<edit>"
    return f"{tag}\n{edit.old}=======\n{edit.new}</edit>"


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
