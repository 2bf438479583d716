"""A calculator: expressions read as a tree of Python's own grammar, worked out exactly, and never run."""

import ast
import math
import operator
from collections.abc import Callable, Mapping
from fractions import Fraction
from types import MappingProxyType

from fettle.environments.tools.tool import ToolMistake

Number = int | Fraction | float
Exact = int | Fraction

MOST_CHARACTERS = 500
MOST_BITS = 4096
"""Of a number: some twelve hundred digits."""
MOST_EXPONENT = 1000
MOST_FACTORIAL = 400
MOST_PLACES = 30
SIGNS = str.maketrans({"×": "*", "÷": "/", "−": "-", "·": "*", "π": "pi"})
CONSTANTS: Mapping[str, float] = MappingProxyType({"pi": math.pi, "e": math.e})


def calculator(expression: str) -> str:
    """Works out an arithmetic expression such as (12 + 3) * sqrt(16) / 7, exactly where that is possible.

    >>> calculator("sqrt(16)"), calculator("2 / 3"), calculator("0.1 + 0.2"), calculator("sin(pi / 2)")
    ('4', '2/3 = 0.666666666667', '0.3', '1')

    Raises:
        ToolMistake: it is no such expression, has no value, or one that is too long.
    """
    if len(expression) > MOST_CHARACTERS:
        raise ToolMistake(f"an expression has at most {MOST_CHARACTERS} characters")
    try:
        text = expression.translate(SIGNS).strip()
        return _written(_value(ast.parse(text, mode="eval").body, text))
    except (SyntaxError, ValueError) as error:
        raise ToolMistake(f"{expression[:60]!r} is no expression that can be worked out") from error
    except ZeroDivisionError as error:
        raise ToolMistake("something is divided by zero") from error
    except OverflowError as error:
        raise ToolMistake("the result is too large") from error
    except (RecursionError, MemoryError) as error:
        raise ToolMistake("the expression is nested too deeply") from error


def _value(node: ast.expr, text: str) -> Number:
    match node:
        case ast.Constant(value=bool()):
            raise ToolMistake("True and False are no numbers")
        case ast.Constant(value=int() as number):
            return _bounded(number)
        case ast.Constant(value=float()):
            return _decimal(ast.get_source_segment(text, node) or "")
        case ast.UnaryOp(op=ast.UAdd() | ast.USub() as sign, operand=operand):
            value = _value(operand, text)
            return -value if isinstance(sign, ast.USub) else value
        case ast.BinOp(left=left, op=sign, right=right) if type(sign) in OPERATIONS:
            return _bounded(OPERATIONS[type(sign)](_value(left, text), _value(right, text)))
        case ast.Name(id=name) if name in CONSTANTS:
            return CONSTANTS[name]
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in FUNCTIONS:
            return _bounded(_applied(name, [_value(argument, text) for argument in arguments]))
    raise ToolMistake(_unknown(node))


def _unknown(node: ast.expr) -> str:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitXor):
        return "write a power as 2 ** 3"
    if isinstance(node, ast.Tuple):
        return "write numbers without commas"
    return f"{ast.unparse(node)[:60]!r} is none of numbers, + - * / // % **, {', '.join((*FUNCTIONS, *CONSTANTS))}"


def _applied(name: str, values: list[Number]) -> Number:
    try:
        return FUNCTIONS[name](*values)
    except TypeError as error:
        raise ToolMistake(f"{name} takes another number of arguments, or whole ones") from error


def _bounded(value: Number) -> Number:
    if isinstance(value, float):
        if not math.isfinite(value):
            raise OverflowError
        return value
    if _bits(value) > MOST_BITS:
        raise OverflowError
    return value.numerator if isinstance(value, Fraction) and value.denominator == 1 else value


def _bits(value: Exact) -> int:
    return max(value.numerator.bit_length(), value.denominator.bit_length())


def _decimal(text: str) -> Number:
    """A number with a point or an exponent, to its last digit."""
    digits, _, exponent = text.lower().partition("e")
    if abs(int(exponent or 0)) > MOST_EXPONENT:
        raise OverflowError
    return _bounded(Fraction(digits) * Fraction(10) ** int(exponent or 0))


def _divided(left: Number, right: Number) -> Number:
    return left / right if isinstance(left, float) or isinstance(right, float) else Fraction(left) / Fraction(right)


def _power(base: Number, exponent: Number) -> Number:
    if isinstance(base, float) or isinstance(exponent, float) or exponent.denominator != 1:
        found = float(base) ** float(exponent)
        if not isinstance(found, float):
            raise ToolMistake("the result is no real number")
        return found
    power = int(exponent)
    if base == 0 and power < 0:
        raise ZeroDivisionError
    if base in (0, 1, -1):  # of any power, however large
        return base if power % 2 else base * base if power else 1
    if _bits(base) * abs(power) > 2 * MOST_BITS:
        raise OverflowError
    return Fraction(base) ** power


def _root(value: Number) -> Number:
    if value < 0:
        raise ToolMistake("a negative number has no real square root")
    if isinstance(value, float):
        return math.sqrt(value)
    above, below = math.isqrt(value.numerator), math.isqrt(value.denominator)
    return Fraction(above, below) if Fraction(above, below) ** 2 == value else math.sqrt(value)


def _factorial(value: Number) -> Number:
    number = int(value)
    if value != number or not 0 <= number <= MOST_FACTORIAL:
        raise ToolMistake(f"factorial takes a whole number from 0 to {MOST_FACTORIAL}")
    return math.factorial(number)


def _rounded(value: Number, places: Number = 0) -> Number:
    if places != int(places) or not -MOST_PLACES <= int(places) <= MOST_PLACES:
        raise ToolMistake(f"round takes a whole number of places, at most {MOST_PLACES}")
    return round(Fraction(value), int(places))


def _written(value: Number) -> str:
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return f"{value:.12g}"
    twos, fives = _times(value.denominator, 2), _times(value.denominator, 5)
    if value.denominator != 2**twos * 5**fives:
        return f"{value} = {float(value):.12g}"
    places = max(twos, fives)
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    return f"{'-' * (value < 0)}{digits[:-places]}.{digits[-places:]}"


def _times(number: int, prime: int) -> int:
    """How often ``prime`` divides ``number``."""
    times = 0
    while number % prime == 0:
        number, times = number // prime, times + 1
    return times


OPERATIONS: Mapping[type[ast.operator], Callable[[Number, Number], Number]] = MappingProxyType(
    {
        ast.Add: operator.add,
        ast.Sub: operator.sub,
        ast.Mult: operator.mul,
        ast.Div: _divided,
        ast.FloorDiv: operator.floordiv,
        ast.Mod: operator.mod,
        ast.Pow: _power,
    }
)
FUNCTIONS: Mapping[str, Callable[..., Number]] = MappingProxyType(
    {
        "sqrt": _root,
        "abs": abs,
        "round": _rounded,
        "floor": math.floor,
        "ceil": math.ceil,
        "min": min,
        "max": max,
        "gcd": math.gcd,
        "lcm": math.lcm,
        "factorial": _factorial,
        "exp": math.exp,
        "log": math.log,
        "log10": math.log10,
        "sin": math.sin,
        "cos": math.cos,
        "tan": math.tan,
    }
)
