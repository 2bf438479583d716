"""Programs as they are run: what of a text says nothing to Python is left out of them."""

import ast
import warnings
from collections.abc import Hashable
from functools import lru_cache
from types import CodeType

from fettle.issues.trees import MOST_KEPT

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
DEFINITIONS = (*FUNCTIONS, ast.ClassDef)
BLOCKS = ("body", "orelse", "finalbody")
DEEPEST = 300
"""Of expressions and blocks within others; what is deeper is no program here, and none that somebody wrote."""


def parsed(source: bytes | str) -> ast.Module:
    """Without warnings about what a model wrote: they are nobody's here.

    Raises:
        SyntaxError: it is no program, or is nested deeper than can be read.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        try:
            tree = ast.parse(source)
        except (ValueError, RecursionError, MemoryError) as error:
            raise SyntaxError(str(error)) from error
    level, depth = list(ast.iter_child_nodes(tree)), 0
    while level:
        level, depth = [child for node in level for child in ast.iter_child_nodes(node)], depth + 1
        if depth > DEEPEST:
            raise SyntaxError(f"it is nested deeper than {DEEPEST}")
    return tree


def bare(source: bytes | str) -> ast.Module:
    r"""A program without what it does not do: docstrings, values that nobody takes, ``n = n``, variables never read.

    >>> ast.unparse(bare('def f(n):\n    "Doubles."\n    n = n\n    unused = 1\n    return 2 * n'))
    'def f(n):\n    return 2 * n'

    Raises:
        SyntaxError: it is no program.
    """
    tree = parsed(source)
    for node in ast.walk(tree):
        if isinstance(node, FUNCTIONS):
            _leave(node, _unread(node))
    _leave(tree, frozenset())
    return tree


@lru_cache(maxsize=MOST_KEPT)
def meaning(source: bytes | str) -> Hashable:
    """What two texts share that are one program: the same instructions, wherever their lines are.

    Raises:
        SyntaxError: it is no program.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        try:
            return _instructions(compile(bare(source), "", "exec", dont_inherit=True))
        except (ValueError, RecursionError, MemoryError) as error:
            raise SyntaxError(str(error)) from error


def _leave(scope: ast.AST, unread: frozenset[str]) -> None:
    """Leave what does nothing out of the blocks of a scope, down to where others begin."""
    for name in BLOCKS:
        block = getattr(scope, name, None)
        if isinstance(block, list) and block:
            kept = [statement for statement in block if not _is_idle(statement, unread)]
            setattr(scope, name, kept or ([] if name == "orelse" else [ast.copy_location(ast.Pass(), block[0])]))
    for child in ast.iter_child_nodes(scope):
        if not isinstance(child, FUNCTIONS):
            _leave(child, frozenset() if isinstance(child, ast.ClassDef) else unread)


def _is_idle(statement: ast.stmt, unread: frozenset[str]) -> bool:
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Constant | ast.Name)
    if isinstance(statement, ast.If | ast.While) and isinstance(statement.test, ast.Constant):
        return not (statement.test.value or statement.orelse)
    if not isinstance(statement, ast.Assign):
        return isinstance(statement, ast.Pass)
    names = {target.id if isinstance(target, ast.Name) else "" for target in statement.targets}
    if isinstance(statement.value, ast.Name) and names == {statement.value.id}:
        return True
    return isinstance(statement.value, ast.Constant | ast.Name) and names <= unread


def _unread(function: ast.AST) -> frozenset[str]:
    """The variables of a function that it only sets."""
    inside = list(ast.walk(function))
    names = [node for node in inside if isinstance(node, ast.Name)]
    read = {node.id for node in names if not isinstance(node.ctx, ast.Store)}
    elsewhere = {name for node in inside if isinstance(node, ast.Global | ast.Nonlocal) for name in node.names}
    return frozenset({node.id for node in names} - read - elsewhere)


def _instructions(code: CodeType) -> Hashable:
    consts = tuple(_instructions(c) if isinstance(c, CodeType) else (type(c), repr(c)) for c in code.co_consts)
    counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    names = (code.co_name, code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    return (code.co_code, code.co_exceptiontable, consts, counts, names)
