"""Exact numbers: sums of fractions, each times a root and a power of pi."""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from math import isqrt

MOST_TERMS = 8
MOST_BITS = 4096
LARGEST_RADICAND = 10**4

Basis = tuple[int, int]
"""What a fraction is multiplied by: the root of a square-free number, and a power of pi."""

ONE: Basis = (1, 0)


@dataclass(frozen=True, slots=True)
class Number:
    """``terms`` are sorted, and none of them is 0."""

    terms: tuple[tuple[Basis, Fraction], ...]

    def __add__(self, other: "Number") -> "Number":
        return _collected((*self.terms, *other.terms))

    def __neg__(self) -> "Number":
        return Number(tuple((basis, -factor) for basis, factor in self.terms))

    def __mul__(self, other: "Number") -> "Number":
        return _collected(_product(mine, theirs) for mine in self.terms for theirs in other.terms)

    @property
    def fraction(self) -> Fraction | None:
        """Its value, where it is rational."""
        if not self.terms:
            return Fraction(0)
        (basis, factor), *rest = self.terms
        return factor if basis == ONE and not rest else None

    @property
    def inverse(self) -> "Number | None":
        """1 over it; None for 0 and for sums of several terms."""
        if len(self.terms) != 1:
            return None
        ((root, power), factor) = self.terms[0]
        return Number((((root, -power), 1 / (factor * root)),))

    @property
    def fits(self) -> bool:
        """Whether it is small enough to go on with."""
        bits = (factor.numerator.bit_length() + factor.denominator.bit_length() for _, factor in self.terms)
        known = all(radicand <= LARGEST_RADICAND for (radicand, _), _ in self.terms)
        return known and len(self.terms) <= MOST_TERMS and all(size <= MOST_BITS for size in bits)


PI = Number((((1, 1), Fraction(1)),))


def rational(value: Fraction | int) -> Number:
    """A fraction or a whole number."""
    return Number(((ONE, Fraction(value)),) if value else ())


def power(number: Number, exponent: int) -> Number | None:
    """A rational number to a whole power; None where that is too large, or is not defined."""
    base = number.fraction
    if base is None or (base == 0 and exponent <= 0):
        return None
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    return rational(base**exponent) if bits * abs(exponent) <= MOST_BITS else None


def root(number: Number, degree: int = 2) -> Number | None:
    """The root of a rational number; None where it is not one that is known here."""
    value = number.fraction
    if value is None or value < 0:
        return None
    if degree != 2:
        found = _whole_root(value.numerator, degree), _whole_root(value.denominator, degree)
        return None if None in found else rational(Fraction(*found))  # type: ignore[arg-type]
    below = value.numerator * value.denominator  # the root of p/q is the root of pq, over q
    outside = isqrt(below)
    if outside * outside == below:
        return rational(Fraction(outside, value.denominator))
    if below > LARGEST_RADICAND:
        return None
    outside, inside = _square_free(below)
    return Number((((inside, 0), Fraction(outside, value.denominator)),))


def _product(one: tuple[Basis, Fraction], other: tuple[Basis, Fraction]) -> tuple[Basis, Fraction]:
    ((root_one, power_one), factor_one), ((root_other, power_other), factor_other) = one, other
    outside, inside = _square_free(root_one * root_other)
    return (inside, power_one + power_other), factor_one * factor_other * outside


def _collected(terms: Iterable[tuple[Basis, Fraction]]) -> Number:
    total: dict[Basis, Fraction] = {}
    for basis, factor in terms:
        total[basis] = total.get(basis, Fraction(0)) + factor
    return Number(tuple(sorted((basis, factor) for basis, factor in total.items() if factor)))


def _square_free(number: int) -> tuple[int, int]:
    """``number`` as the square of the first times the second, which no square divides."""
    outside, inside, factor = 1, number, 2
    while factor * factor <= inside:
        while inside % (factor * factor) == 0:
            inside //= factor * factor
            outside *= factor
        factor += 1
    return outside, inside


def _whole_root(number: int, degree: int) -> int | None:
    """The exact whole root, where there is one below a thousand."""
    return next((base for base in range(1000) if base**degree == number), None) if 2 < degree < 10 else None
