"""Why a change is not tested: for what it brings that neither the problem's files nor its solution have."""

import re
import sys
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import PurePosixPath

from fettle.issues.reaches import NOTHING, Reaches, reaches
from fettle.issues.testing import is_of_tests
from fettle.issues.trees import Tree

READ_AT_START = (".pth", ".so", ".pyd", ".pyc", ".egg-link")
"""Endings of files that Python loads unasked, or that are no text."""


def refusal(base: Tree, proposed: Tree, solution: Tree) -> str:
    """Why what a change brings is not tested; empty where it is.

    What it brings is what its files have that they did not have before and that the solution's do not have either. Of a
    file that is no program nothing is said: it is not tested anyway.
    """
    programs = [path for tree in (base, proposed) for path in tree.files if path.endswith(".py")]
    own = frozenset(word for path in programs for word in path.removesuffix(".py").split("/"))
    after = [_reaches(solution.files[path], own) for path in _changed(base, solution)]
    before = {path: _reaches(base.files.get(path, b""), own) for path in _changed(base, proposed)}
    mended = {name for path in _changed(base, solution) for name in _remade(base, solution, path, own)}
    for path in _changed(base, proposed):
        if path not in base.files and path not in solution.files and (why := _misplaced(base, path)):
            return why
        found, known = _reaches(proposed.files[path], own), [before[path], *after]
        names = found.names.difference(*(each.names for each in known))
        brought = sorted(name for name in names if not _is_used(base, name))
        special = sorted({name for name, _ in found.special.difference(*(each.special for each in known))} - mended)
        if brought or special:
            return f"{path} has {(brought or special)[0]}, which neither it nor the solution had"
    return ""


def _changed(base: Tree, tree: Tree) -> Iterator[str]:
    return (path for path, data in tree.files.items() if data != base.files.get(path))


def _reaches(source: bytes, own: frozenset[str]) -> Reaches:
    try:
        return reaches(source, own)
    except SyntaxError:
        return NOTHING


def _remade(base: Tree, solution: Tree, path: str, own: frozenset[str]) -> set[str]:
    """The special methods that the solution makes, or makes anew: these the change has to make, too."""
    before, after = (_reaches(tree.files.get(path, b""), own) for tree in (base, solution))
    return {name for name, _ in before.special ^ after.special}


def _is_used(base: Tree, name: str) -> bool:
    """Whether a package that is imported is one that the project's own programs import elsewhere."""
    _, imports, root = name.rpartition("import ")
    if not imports or not root.isidentifier() or root in sys.stdlib_module_names:
        return False
    line = re.compile(rf"^\s*(import|from)\s+{root}\b".encode(), re.MULTILINE)
    return any(line.search(data) for path, data in base.files.items() if path.endswith(".py") and not is_of_tests(path))


def _misplaced(base: Tree, path: str) -> str:
    """Why a new file may not lie where it does."""
    place = PurePosixPath(path)
    if is_of_tests(path) or place.suffix in READ_AT_START:
        return f"{path} would be read before the tests, or as one of them"
    if place.suffix != ".py" and place.suffix not in {PurePosixPath(each).suffix for each in base.files}:
        return f"{path} is of a kind that the project has no file of"
    folders = {part for each in base.files for part in PurePosixPath(each).parts[:-1]}
    tests = {PurePosixPath(each).stem for each in base.files if is_of_tests(each)} - {"__init__"}
    new = {part for part in place.parts[:-1] if part not in folders} | {place.stem}
    for name in sorted(new - {"__init__"} if place.suffix == ".py" else new - {place.stem}):
        if name in tests or name in sys.stdlib_module_names or _is_installed(name):
            return f"{path} would stand in the place of the module {name}"
    return ""


@cache
def _is_installed(name: str) -> bool:
    """Whether a package of that name can be imported here, and so in the sandbox."""
    return name.isidentifier() and find_spec(name) is not None
