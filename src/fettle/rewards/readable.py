"""How easily programs are read, by what can be counted and not be padded: comments and blank lines add nothing."""

import ast
import warnings
from collections.abc import Iterator, Sequence

LONG_LINE, LONG_FUNCTION, DEEP, BRANCHED = 100, 50, 4, 10
"""Characters of a line, statements of a function, blocks within blocks, and branches, up to which all is well."""
ROUGHEST = 20
"""Faults at which a program is worth nothing, or that a change must bring to be."""
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
BRANCHES = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.IfExp, ast.comprehension, ast.match_case)
BLOCKS = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Try, ast.Match)


def readable(before: Sequence[str], after: Sequence[str]) -> float:
    r"""1 for programs that are no harder to read than they were, less a twentieth for each fault more; 0 for none.

    >>> readable(["def f(x):\n    return x\n"], ["def f(x):\n    return x + 1\n"])
    1.0
    >>> readable([], ["def f(:"])
    0.0
    """
    try:
        faults_after = sum(map(faults, after))
    except (SyntaxError, ValueError, RecursionError):
        return 0.0
    try:
        faults_before = sum(map(faults, before))
    except (SyntaxError, ValueError, RecursionError):
        faults_before = 0  # what does not compile is no excuse
    return min(1.0, max(0.0, 1 - (faults_after - faults_before) / ROUGHEST))


def faults(source: str) -> int:
    """How often a program goes beyond what is easily read: in lines, functions, blocks and branches.

    Raises:
        SyntaxError: it is none.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # about what a model wrote
        tree = ast.parse(source)
    long_lines = sum(len(line) > LONG_LINE for line in source.splitlines())
    return long_lines + sum(_faults_of(node) for node in ast.walk(tree) if isinstance(node, FUNCTIONS))


def _faults_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    inner = list(ast.walk(function))
    statements = sum(isinstance(node, ast.stmt) for node in inner) - 1
    branches = sum(isinstance(node, BRANCHES) for node in inner)
    over = (statements - LONG_FUNCTION, max(_depths(function, 0)) - DEEP, branches - BRANCHED)
    return sum(max(0, count) for count in over)


def _depths(node: ast.AST, depth: int) -> Iterator[int]:
    yield depth
    for child in ast.iter_child_nodes(node):
        yield from _depths(child, depth + isinstance(child, BLOCKS))
