"""Reading: a number in the small alphabet, to its exact value, and whether it still has to be worked out."""

import re
from dataclasses import dataclass
from fractions import Fraction

from fettle.rewards.exact.numbers import PI, Number, power, rational, root

MOST_TOKENS = 120
LARGEST_EXPONENT = 400
TOKEN = re.compile(
    r"\s*(?P<number>(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])(?:\.[0-9]*)?|[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"
    r"|\s*(?P<sign>[-+*/^(){}\[\]÷√π])"
)


@dataclass(frozen=True, slots=True)
class Read:
    """A number as it was written."""

    number: Number
    unfinished: bool = False
    """Whether it leaves work to be done, as ``12 + 34`` and ``84/4`` do: that is a question and no answer."""
    kind: str = "other"
    """``whole`` and ``decimal`` for a bare one, ``fraction`` for two whole ones, ``power``; else ``other``."""


class _UnreadError(Exception):
    """What is written is no number that can be read here."""


def number(text: str) -> Read | None:
    """The number that the whole of ``text`` (in the small alphabet) writes; None where it writes none.

    >>> number("3÷{1}{2}").number.fraction, number("6 + 1").unfinished
    (Fraction(7, 2), True)
    """
    tokens = _tokens(text)
    if not tokens or len(tokens) > MOST_TOKENS:
        return None
    reader = _Reader(tokens)
    try:
        found = reader.sum()
    except _UnreadError:
        return None
    return found if reader.at_end else None


def _tokens(text: str) -> list[str] | None:
    found, place = [], 0
    text = text.rstrip()
    while place < len(text):
        match = TOKEN.match(text, place)
        if match is None:
            return None
        found.append(match.group().strip())
        place = match.end()
    return found


class _Reader:
    """Descends through sums, products and powers; every value on the way is small enough, or nothing is read."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self._place = 0

    @property
    def at_end(self) -> bool:
        """Whether everything was read."""
        return self._place == len(self._tokens)

    def sum(self) -> Read:
        """Terms that are added; what could be added up and is not, is unfinished."""
        total = self._signed_product()
        while self._next() in ("+", "-"):
            term = self._signed_product()
            alike = {basis for basis, _ in total.number.terms} & {basis for basis, _ in term.number.terms}
            nothing = not total.number.terms or not term.number.terms
            unfinished = total.unfinished or term.unfinished or bool(alike) or nothing
            total = Read(_small(total.number + term.number), unfinished)
        return total

    def _signed_product(self) -> Read:
        sign = self._taken() if self._next() in ("+", "-") else "+"
        found = self._product()
        return found if sign == "+" else Read(-found.number, found.unfinished, found.kind)

    def _product(self) -> Read:
        left = self._power()
        mixed = self._mixed(left)
        if mixed is not None:
            return mixed
        while True:
            following = self._next()
            if following == "/":
                self._taken()
                left = _divided(left, self._power())
            elif following == "*":
                self._taken()
                left = _multiplied(left, self._power())
            elif following in ("(", "√", "π", "÷", "{"):
                left = _multiplied(left, self._power())
            else:
                return left

    def _mixed(self, whole: Read) -> Read | None:
        """A whole number and a proper fraction right after it: ``3 1/2``."""
        if whole.kind != "whole" or not (self._next().isdigit() or self._next() == "÷"):
            return None
        part = self._power()
        if part.kind == "whole" and self._next() == "/":
            self._taken()
            part = _divided(part, self._power())
        value = part.number.fraction
        if part.kind != "fraction" or value is None or not 0 < value < 1:
            raise _UnreadError
        return Read(whole.number + part.number, part.unfinished)

    def _power(self) -> Read:
        base = self._atom()
        if self._next() != "^":
            return base
        self._taken()
        raised = self._signed_atom()
        exponent = raised.number.fraction
        if exponent is None or exponent.denominator != 1 or abs(exponent) > LARGEST_EXPONENT:
            raise _UnreadError
        found = power(base.number, int(exponent))
        if found is None:
            raise _UnreadError
        unfinished = base.unfinished or raised.unfinished or base.kind != "whole" or raised.kind != "whole"
        return Read(found, unfinished, "power")

    def _signed_atom(self) -> Read:
        if self._next() != "-":
            return self._atom()
        self._taken()
        found = self._atom()
        return Read(-found.number, found.unfinished, found.kind)

    def _atom(self) -> Read:
        token = self._taken()
        if token == "π":
            return Read(PI)
        if token == "√":
            return self._root()
        if token == "÷":
            return _divided(self._argument(), self._argument())
        if token in ("(", "{"):
            return self._until(")" if token == "(" else "}")
        return _literal(token)

    def _root(self) -> Read:
        degree = 2
        if self._next() == "[":
            self._taken()
            whole = self._until("]").number.fraction
            degree = int(whole) if whole is not None and whole.denominator == 1 else 0
        inside = self._argument(whole=True)
        found = root(inside.number, degree)
        if found is None:
            raise _UnreadError
        return Read(found, inside.unfinished or found.fraction is not None)

    def _argument(self, *, whole: bool = False) -> Read:
        """A group, or the one digit that LaTeX takes without braces (the ``whole`` number after a bare root)."""
        token = self._next()
        if token.isdigit() and len(token) > 1 and not whole:
            self._tokens[self._place] = token[1:]
            return _literal(token[0])
        return self._atom()

    def _until(self, closing: str) -> Read:
        inside = self.sum()
        if self._taken() != closing:
            raise _UnreadError
        return inside

    def _next(self) -> str:
        return "" if self.at_end else self._tokens[self._place]

    def _taken(self) -> str:
        if self.at_end:
            raise _UnreadError
        self._place += 1
        return self._tokens[self._place - 1]


def _literal(token: str) -> Read:
    if not (token[0].isdigit() or token[0] == "."):
        raise _UnreadError
    mantissa, _, exponent = token.replace(",", "").lower().partition("e")
    if exponent and abs(int(exponent)) > LARGEST_EXPONENT:
        raise _UnreadError
    value = Fraction(mantissa) * Fraction(10) ** int(exponent or 0)
    return Read(rational(value), kind="whole" if mantissa.isdigit() and not exponent else "decimal")


def _divided(above: Read, below: Read) -> Read:
    inverse = below.number.inverse
    if inverse is None:
        raise _UnreadError
    found = _small(above.number * inverse)
    unfinished = above.unfinished or below.unfinished
    if above.number.fraction is None or below.number.fraction is None:
        return Read(found, unfinished or found.fraction is not None)
    value = found.fraction or Fraction(0)
    bare = above.kind == below.kind == "whole"
    return Read(found, unfinished or not bare or value.denominator == 1, "fraction" if bare else "other")


def _multiplied(left: Read, right: Read) -> Read:
    found = _small(left.number * right.number)
    unfinished = left.unfinished or right.unfinished
    one, other = left.number.fraction, right.number.fraction
    if one is not None and other is not None:
        scientific = left.kind in ("whole", "decimal") and right.kind == "power" and _is_of_ten(other)
        return Read(found, unfinished or not scientific)
    return Read(found, unfinished or (one is None and other is None and _combine(left.number, right.number)))


def _combine(one: Number, other: Number) -> bool:
    """Whether two numbers have roots, or powers of pi, that can be multiplied out."""
    roots, powers = (
        [{basis[place] for basis, _ in each.terms} - {(1, 0)[place]} for each in (one, other)] for place in (0, 1)
    )
    return all(roots) or all(powers) or len(one.terms) > 1 or len(other.terms) > 1


def _is_of_ten(value: Fraction) -> bool:
    return str(value.numerator * value.denominator).rstrip("0") == "1"


def _small(found: Number) -> Number:
    if not found.fits:
        raise _UnreadError
    return found
