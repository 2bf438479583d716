"""What a proposed change is worth beside what its tests say: how near the solution it is, and how well made."""

import ast
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Hashable, Iterable, Mapping
from functools import lru_cache
from pathlib import Path

from rapidfuzz.distance import Indel

from fettle.issues.patches import FilePatch, files_of, kind_of, size_of
from fettle.issues.programs import DEFINITIONS, bare, meaning
from fettle.issues.trees import MOST_KEPT, Tree

LONGEST = 20_000
"""Characters of changed lines that are compared."""
RULES = "E9,F,B,C901"
"""Errors, mistakes that are likely, and functions with more than ten ways through them."""
SLACK = 20
"""Lines beyond twice the solution's, over which the worth of a change falls to a third."""
TOLERATED = 5
"""New violations at which the quality of a change is 0."""


def similarity(base: Tree, proposed: Tree, solution: Tree) -> float:
    """How alike the changed lines of two changes are, from 0 to 1, each file by its share of them.

    Lines around them do not count, comments and blank lines do not either, and a change of Python that does not
    compile, or leaves the program as it was, is like none.
    """
    if not is_program(base, proposed):
        return 0.0
    own, right = (_changed(base.patch_to(tree)) for tree in (proposed, solution))
    weights = {path: max(len(own.get(path, ())), len(right.get(path, ()))) for path in {*own, *right}}
    total = sum(weights.values())
    if not total:
        return 0.0
    alike = (w * _ratio(own.get(path, ()), right.get(path, ())) for path, w in weights.items())
    return sum(alike) / total


def location(base: Tree, proposed: Tree, solution: Tree) -> float:
    """F1 of the files and functions that two changes touch."""
    own, right = (_places(base, tree) for tree in (proposed, solution))
    both = len(own & right)
    return 2 * both / (len(own) + len(right)) if both else 0.0


def size(base: Tree, proposed: Tree, solution: Tree) -> float:
    """1 for a change of up to twice the solution's lines; less and less beyond:  exp(-(n - 2 n*) / (2 n* + 20))."""
    own, right = (size_of(files_of(base.patch_to(tree))) for tree in (proposed, solution))
    return math.exp(-max(0, own - 2 * right) / (2 * right + SLACK))


def quality(base: Tree, proposed: Tree) -> float:
    """1 less a fifth for each violation of ruff's rules for errors, bugs and complexity that a change brings.

    0 for what is no program.
    """
    if not is_program(base, proposed):
        return 0.0
    changed = [path for path in proposed.files if path.endswith(".py") and proposed.files[path] != base.files.get(path)]
    before, after = (_violations(tuple(t.files[p] for p in changed if p in t.files)) for t in (base, proposed))
    return min(1.0, max(0.0, 1 - (after - before) / TOLERATED))


def is_program(base: Tree, proposed: Tree) -> bool:
    """Whether each changed file of Python compiles, and at least one file, but for documents, does something else.

    A change of which this is not so mends nothing, and need not be tested: one of comments, of docstrings, or of lines
    that do nothing, as ``n = n``.
    """
    differs = any(path not in proposed.files for path in base.files)
    for path, data in proposed.files.items():
        if data == base.files.get(path):
            continue
        if not path.endswith(".py"):
            differs = differs or kind_of(path) != "docs"
            continue
        try:
            differs = meaning(data) != _meant(base.files.get(path, b"")) or differs
        except SyntaxError:
            return False
    return differs


def _meant(data: bytes) -> Hashable:
    try:
        return meaning(data)
    except SyntaxError:
        return None


def _changed(patch: str) -> dict[str, tuple[str, ...]]:
    """For each file its changed lines with their sign, whatever their layout, without comments."""
    return {file.path: tuple(_said(file)) for file in files_of(patch)}


def _said(file: FilePatch) -> Iterable[str]:
    for sign, lines in (("-", file.removed), ("+", file.added)):
        for line in lines:
            words = " ".join(line.split())
            if words and not words.startswith("#"):
                yield f"{sign}{words}"


def _ratio(own: tuple[str, ...], right: tuple[str, ...]) -> float:
    first, second = ("\n".join(lines)[:LONGEST] for lines in (own, right))
    return float(Indel.normalized_similarity(first, second)) if first and second else 0.0


def _places(base: Tree, tree: Tree) -> set[tuple[str, str]]:
    """The files that a change touches, and the functions in them."""
    found: set[tuple[str, str]] = set()
    for file in files_of(base.patch_to(tree)):
        found.add((file.path, ""))
        found |= {(file.path, name) for name in _functions(base, tree, file.path)}
    return found


def _functions(base: Tree, tree: Tree, path: str) -> set[str]:
    """The names of functions and classes that are not the same in both."""
    before, after = (_definitions(each.text(path) or "") for each in (base, tree))
    return {name for name in {*before, *after} if before.get(name) != after.get(name)}


@lru_cache(maxsize=MOST_KEPT)
def _definitions(text: str) -> Mapping[str, str]:
    try:
        nodes = list(ast.walk(bare(text)))
    except SyntaxError:
        return {}
    return {node.name: ast.dump(node) for node in nodes if isinstance(node, DEFINITIONS)}


@lru_cache(maxsize=MOST_KEPT)
def _violations(files: tuple[bytes, ...]) -> int:
    with tempfile.TemporaryDirectory() as name:
        for at, data in enumerate(files):
            (Path(name) / f"f{at}.py").write_bytes(data)
        command = [
            sys.executable,
            "-m",
            "ruff",
            "check",
            "--isolated",
            "--no-cache",
            "--ignore-noqa",
            "--select",
            RULES,
        ]
        done = subprocess.run([*command, "--output-format", "json", name], capture_output=True, check=False)
        return len(json.loads(done.stdout or b"[]"))
