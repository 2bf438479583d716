"""Asserts as tests: what is called, to run inside the sandbox, and what should come out, to compare outside of it."""

import ast
import operator
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from fettle.rewards.code_inside import encoded
from fettle.rewards.coding import CallTest

MOST_BITS = 10_000  # of a whole number that is worked out, and of how often something is repeated

OPERATORS: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = MappingProxyType(
    {
        ast.Add: operator.add,
        ast.Sub: operator.sub,
        ast.Mult: operator.mul,
        ast.Div: operator.truediv,
        ast.FloorDiv: operator.floordiv,
        ast.Mod: operator.mod,
        ast.Pow: operator.pow,
    }
)
KINDS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {"set": set, "frozenset": frozenset, "tuple": tuple, "list": list, "dict": dict, "float": float, "sorted": sorted}
)
NEAR = 1e-9
"""What ``math.isclose`` allows where nothing is said."""


@dataclass(frozen=True, slots=True)
class Converted:
    """What became of a test written as statements."""

    tests: tuple[CallTest, ...]
    left: tuple[str, ...]
    """Statements that can only be run, not compared outside."""


def converted(body: Collection[ast.stmt], names: Collection[str]) -> Converted:
    """The asserts of ``body`` that compare what ``names`` return with something known, and the other statements."""
    tests, left = [], []
    for statement in body:
        if _says_nothing(statement):
            continue
        test = _test(statement.test, names) if isinstance(statement, ast.Assert) else None
        if test is None:
            left.append(ast.unparse(statement))
        else:
            tests.append(test)
    return Converted(tuple(tests), tuple(left))


def called(statements: Collection[ast.stmt]) -> list[str]:
    """The names that are called as functions, in order, each once."""
    calls = (node for statement in statements for node in ast.walk(statement) if isinstance(node, ast.Call))
    return list(dict.fromkeys(node.func.id for node in calls if isinstance(node.func, ast.Name)))


def _says_nothing(statement: ast.stmt) -> bool:
    """``assert True``, ``pass``, a text that stands alone."""
    if isinstance(statement, ast.Assert):
        return isinstance(statement.test, ast.Constant) and bool(statement.test.value)
    alone = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    return alone or isinstance(statement, ast.Pass)


def _test(claim: ast.expr, names: Collection[str]) -> CallTest | None:
    if isinstance(claim, ast.UnaryOp) and isinstance(claim.op, ast.Not):
        return _truth(claim.operand, names, expected=False)
    if isinstance(claim, ast.Compare):
        if len(claim.ops) != 1:
            return None
        if isinstance(claim.ops[0], ast.Eq | ast.Is):
            return _equality(claim.left, claim.comparators[0], names)
        if isinstance(claim.ops[0], ast.Lt | ast.LtE):
            return _distance(claim.left, claim.comparators[0], names)
        return None
    return _near(claim, names) or _truth(claim, names, expected=True)


def _equality(one: ast.expr, other: ast.expr, names: Collection[str], tolerance: float = 0.0) -> CallTest | None:
    """The side that calls is run inside, and the other is worked out here; None where that cannot be."""
    inside, known = (one, other) if _mentions(one, names) else (other, one)
    if not _asks(inside, names) or _mentions(known, names) or _compares(inside):
        return None
    try:
        expected = encoded(_constant(known))
    except (ValueError, TypeError, ArithmeticError, LookupError, MemoryError, RecursionError):
        return None
    return CallTest(expression=ast.unparse(inside), expected=expected, tolerance=tolerance)


def _truth(claim: ast.expr, names: Collection[str], *, expected: bool) -> CallTest | None:
    if not isinstance(claim, ast.Call) or not _mentions(claim.func, names):
        return None
    if not _asks(claim, names) or _compares(claim):
        return None
    return CallTest(expression=ast.unparse(claim), expected=expected, truth=True)


def _distance(claim: ast.expr, bound: ast.expr, names: Collection[str]) -> CallTest | None:
    """``abs(f(x) - 0.5) < 1e-6``."""
    match claim:
        case ast.Call(func=ast.Name("abs") | ast.Attribute(attr="fabs"), args=[ast.BinOp(one, ast.Sub(), other)]):
            allowed = _number(bound)
            return None if allowed is None else _equality(one, other, names, allowed)
    return None


def _near(claim: ast.expr, names: Collection[str]) -> CallTest | None:
    """``math.isclose(f(x), 0.5, rel_tol=0.001)``."""
    match claim:
        case ast.Call(func=ast.Name("isclose") | ast.Attribute(attr="isclose"), args=[one, other], keywords=given):
            told = [_number(each.value) for each in given]
            if None in told or any(each.arg not in ("rel_tol", "abs_tol") for each in given):
                return None
            return _equality(one, other, names, max([NEAR, *filter(None, told)]))
    return None


def _number(node: ast.expr) -> float | None:
    try:
        value = _constant(node)
    except (ValueError, TypeError, ArithmeticError):
        return None
    return float(value) if isinstance(value, int | float) and 0 <= value < 1 else None


def _mentions(node: ast.expr, names: Collection[str]) -> bool:
    return any(isinstance(each, ast.Name) and each.id in names for each in ast.walk(node))


def _asks(node: ast.expr, names: Collection[str]) -> bool:
    """Whether what ``names`` return is told as it is, and meets nothing that the test knows but what it was given.

    Else what is expected would enter, and an object whose difference to anything is 0 would be right each time.
    """
    match node:
        case ast.Name(name):
            return name in names
        case ast.Attribute(made) | ast.Subscript(made) | ast.Starred(made) | ast.UnaryOp(_, made):
            return _asks(made, names)
        case ast.BinOp(left, _, right):
            return _asks(left, names) and _asks(right, names)
        case ast.Tuple(items) | ast.List(items) | ast.Set(items):
            return any(_asks(item, names) for item in items) and all(
                _asks(item, names) or isinstance(item, ast.Constant) for item in items
            )
        case ast.ListComp(told, [ast.comprehension(ast.Name(each), made, [])]):
            return _asks(made, names) and _asks(told, {*names, each})
        case ast.Call():
            return _calls(node, names)
    return False


def _calls(node: ast.Call, names: Collection[str]) -> bool:
    """The same of a call: of what was asked for, of a method without arguments, or of another function of it alone."""
    match node:
        case ast.Call(ast.Name() | ast.Call() as made) if _asks(made, names):
            return True  # what stands in its brackets is what it is given
        case ast.Call(ast.Attribute(made), [], []) if _asks(made, names):
            return True
        case ast.Call(ast.Name("round"), [made, ast.Constant()], []):
            return _asks(made, names)
        case ast.Call(ast.Attribute(ast.Constant(), "join"), [made], []):
            return _asks(made, names)
        case ast.Call(ast.Name() | ast.Attribute(ast.Name()) as other, [made], []):
            return not _mentions(other, names) and _asks(made, names)
    return False


def _compares(node: ast.expr) -> bool:
    """Whether what is expected may stand in it too."""
    return any(isinstance(each, ast.Compare | ast.BoolOp) for each in ast.walk(node))


def _constant(node: ast.expr) -> Any:
    """The value of an expression that needs nothing but itself.

    Raises:
        ValueError: it needs more, or is too large; and whatever arithmetic raises.
    """
    match node:
        case ast.BinOp(left, operation, right) if type(operation) in OPERATORS:
            return _worked_out(operation, _constant(left), _constant(right))
        case ast.Call(func=ast.Name(name), args=args, keywords=[]) if name in KINDS:
            return KINDS[name](*map(_constant, args))
        case ast.List(items):
            return [_constant(item) for item in items]
        case ast.Tuple(items):
            return tuple(_constant(item) for item in items)
        case ast.Set(items):
            return {_constant(item) for item in items}
        case ast.Dict(keys, values) if None not in keys:
            return {_constant(key): _constant(value) for key, value in zip(keys, values, strict=True) if key}
        case ast.UnaryOp(ast.USub(), operand):
            return -_constant(operand)
    return ast.literal_eval(node)


def _worked_out(operation: ast.operator, left: Any, right: Any) -> Any:
    if isinstance(operation, ast.Pow | ast.Mult):
        sizes = [each if isinstance(each, int) else len(each) for each in (left, right) if not isinstance(each, float)]
        bits = [abs(size).bit_length() for size in sizes]
        most = sizes[-1] * bits[0] if isinstance(operation, ast.Pow) and len(sizes) == 2 else sum(bits)
        repeated = not all(isinstance(each, int | float) for each in (left, right))
        if most > MOST_BITS or (repeated and sum(bits) > MOST_BITS.bit_length()):
            raise ValueError("too large to be worked out")
    return OPERATORS[type(operation)](left, right)
