"""Small functions that are right, out of which a corpus of problems is made by putting mistakes into them."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any


def clamp(value: int, low: int, high: int) -> int:
    """The nearest number to value that is from low to high."""
    if value < low:
        return low
    if value > high:
        return high
    return value


def mean(values: list[int]) -> float:
    """The arithmetic mean; 0 for no values."""
    if not values:
        return 0.0
    return sum(values) / len(values)


def is_leap(year: int) -> bool:
    """Whether a year of the Gregorian calendar has 366 days."""
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


def factorial(n: int) -> int:
    """The product of the numbers from 1 to n."""
    product = 1
    for factor in range(2, n + 1):
        product = product * factor
    return product


def count_vowels(text: str) -> int:
    """How many letters of a text are a, e, i, o or u."""
    count = 0
    for letter in text.lower():
        if letter in "aeiou":
            count = count + 1
    return count


def running_sums(values: list[int]) -> list[int]:
    """The sum of each value with all before it."""
    sums = []
    total = 0
    for value in values:
        total = total + value
        sums.append(total)
    return sums


def is_sorted(values: list[int]) -> bool:
    """Whether no value is smaller than the one before it."""
    for at in range(1, len(values)):  # noqa: SIM110  each word a mistake can be made in stands in a line of its own
        if values[at] < values[at - 1]:
            return False
    return True


def digit_sum(n: int) -> int:
    """The sum of a number's decimal digits."""
    total = 0
    while n > 0:
        total = total + n % 10
        n = n // 10
    return total


def chunks(values: list[int], size: int) -> list[list[int]]:
    """The values in lists of a size, of which the last may be shorter."""
    return [values[at : at + size] for at in range(0, len(values), size)]


def second_largest(values: list[int]) -> int:
    """The largest value but one; the same value twice counts twice."""
    ordered = sorted(values, reverse=True)
    return ordered[1]


def common_prefix(first: str, second: str) -> str:
    """The longest text that both begin with."""
    length = 0
    while length < min(len(first), len(second)) and first[length] == second[length]:
        length = length + 1
    return first[:length]


def overlap(start: int, end: int, other_start: int, other_end: int) -> int:
    """The length of what two stretches share; 0 where they do not meet."""
    return max(0, min(end, other_end) - max(start, other_start))


def fahrenheit(celsius: int) -> float:
    """A temperature in degrees of Fahrenheit."""
    return celsius * 9 / 5 + 32


def index_of(values: list[int], wanted: int) -> int:
    """Where a value stands first; -1 where it does not."""
    for at in range(len(values)):
        if values[at] == wanted:
            return at
    return -1


def is_prime(n: int) -> bool:
    """Whether a number has exactly two divisors."""
    if n < 2:
        return False
    for divisor in range(2, n):  # noqa: SIM110  the same
        if n % divisor == 0:
            return False
    return True


def change_due(price: int, paid: int) -> int:
    """What is given back; nothing where too little was paid."""
    if paid < price:
        return 0
    return paid - price


def without(values: list[int], unwanted: int) -> list[int]:
    """The values that are not the unwanted one."""
    return [value for value in values if value != unwanted]


def grade(points: int) -> str:
    """A for 90 points and more, B for 75 and more, C for 50 and more, otherwise F."""
    if points >= 90:
        return "A"
    if points >= 75:
        return "B"
    if points >= 50:
        return "C"
    return "F"


def triangle(a: int, b: int, c: int) -> bool:
    """Whether three lengths are those of a triangle."""
    return a + b > c and a + c > b and b + c > a


def collatz(n: int) -> int:
    """How many steps lead to 1, halving what is even, and else tripling and adding one."""
    steps = 0
    while n != 1 and steps < 100:
        n = n // 2 if n % 2 == 0 else 3 * n + 1
        steps = steps + 1
    return steps


Arguments = tuple[tuple[Any, ...], ...]

SPECIMENS: Mapping[Callable[..., Any], Arguments] = MappingProxyType(
    {
        clamp: ((5, 0, 9), (-3, 0, 9), (12, 0, 9), (0, 0, 9), (9, 0, 9), (4, 4, 4), (-8, -5, -1)),
        mean: (([1, 2, 3],), ([],), ([4],), ([2, 2, 8],), ([-1, 1],), ([10, 20],)),
        is_leap: ((2024,), (2023,), (1900,), (2000,), (2100,), (1996,), (2001,)),
        factorial: ((0,), (1,), (2,), (3,), (5,), (7,)),
        count_vowels: (("banana",), ("",), ("xyz",), ("AEIOU",), ("Open the door",), ("a",)),
        running_sums: (([1, 2, 3],), ([],), ([5],), ([2, -2, 4],), ([0, 0, 1],)),
        is_sorted: (([1, 2, 3],), ([3, 2, 1],), ([],), ([1, 1, 2],), ([2, 1],), ([1, 3, 2, 4],)),
        digit_sum: ((0,), (7,), (10,), (99,), (123,), (1005,)),
        chunks: (([1, 2, 3, 4], 2), ([1, 2, 3], 2), ([], 3), ([1, 2, 3, 4, 5], 3), ([7], 1)),
        second_largest: (([1, 2, 3],), ([5, 5, 1],), ([9, 4],), ([-1, -2, -3],), ([2, 8, 6, 4],)),
        common_prefix: (("flower", "flow"), ("dog", "cat"), ("", "a"), ("same", "same"), ("abcd", "abxy")),
        overlap: ((0, 5, 3, 8), (0, 2, 5, 8), (0, 9, 2, 4), (3, 6, 6, 9), (-4, 0, -2, 5)),
        fahrenheit: ((0,), (100,), (-40,), (37,), (20,)),
        index_of: (([4, 5, 6], 5), ([4, 5, 6], 9), ([], 1), ([7, 7], 7), ([1, 2, 3], 1), ([1, 2, 3], 3)),
        is_prime: ((0,), (1,), (2,), (3,), (4,), (9,), (13,), (15,), (25,)),
        change_due: ((10, 20), (20, 10), (5, 5), (0, 7), (13, 14)),
        without: (([1, 2, 1, 3], 1), ([], 4), ([5, 5], 5), ([1, 2], 9)),
        grade: ((95,), (90,), (89,), (75,), (74,), (50,), (49,), (0,)),
        triangle: ((3, 4, 5), (1, 1, 2), (1, 2, 1), (2, 1, 1), (5, 1, 1), (1, 5, 1), (1, 1, 5), (2, 2, 3)),
        collatz: ((1,), (2,), (3,), (6,), (7,), (8,)),
    }
)
"""Each function with the arguments on which its mistakes are looked for."""

PURPOSES = (
    "price",
    "score",
    "speed",
    "stock",
    "order",
    "level",
    "budget",
    "signal",
    "ticket",
    "sample",
    "route",
    "meter",
)
"""What copies of a function are for, which their names say."""
