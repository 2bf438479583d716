"""Small functions that are right, out of which a corpus of problems is made by putting mistakes into them.

No two are the same: each is of a family, with numbers of its own, which its docstring says.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import comb
from random import Random
from string import Template
from types import MappingProxyType
from typing import Any

Arguments = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Specimen:
    """A function, and calls of it on which its mistakes are looked for."""

    name: str
    source: str
    examples: tuple[Arguments, ...]


@dataclass(frozen=True, slots=True)
class Family:
    """Functions that differ in their names and in their numbers, of which ``$a`` is the least."""

    source: str
    calls: Callable[[list[int], Random], list[Arguments]]
    """Given the numbers."""
    numbers: int = 2
    least: int = 10
    most: int = 60


def specimens(rng: Random, count: int) -> Iterator[Specimen]:
    """So many functions, each family in its turn, no two of one family with the same numbers."""
    seen: set[tuple[str, tuple[int, ...]]] = set()
    names = list(FAMILIES)
    made = 0
    while made < count:
        name = names[made % len(names)]
        family = FAMILIES[name]
        numbers = sorted(rng.sample(range(family.least, family.most), family.numbers))
        if (name, tuple(numbers)) not in seen:
            seen.add((name, tuple(numbers)))
            made += 1
            yield _specimen(name, family, numbers, rng)


def most_specimens() -> int:
    """How many there can be: the family with the fewest numbers to choose from has its turn as often as the others."""
    return min(comb(family.most - family.least, family.numbers) for family in FAMILIES.values()) * len(FAMILIES)


def _specimen(kind: str, family: Family, numbers: list[int], rng: Random) -> Specimen:
    name = f"{kind}_of_{rng.choice(ABOUT)}"
    given = dict(zip("abc", map(str, numbers), strict=False))
    source = Template(family.source).substitute(given, name=name)
    calls = {repr(call): call for call in family.calls(numbers, rng)}
    return Specimen(name, source.lstrip("\n"), tuple(calls.values()))


def _near(numbers: list[int]) -> list[int]:
    """Where a function does something else than just before."""
    return [0, 1, *(n + d for n in numbers for d in (-1, 0, 1)), 2 * numbers[-1] + 1]


def _one(numbers: list[int], rng: Random) -> list[Arguments]:
    return [(n,) for n in (*_near(numbers), *rng.sample(range(2 * numbers[-1] + 4), 3))]


def _two(numbers: list[int], rng: Random) -> list[Arguments]:
    near = _near(numbers)
    pairs = [(n + d, n - d) for n in near[2:] for d in (-1, 0, 1)]
    return [(0, 0), (0, numbers[0]), *pairs, *((rng.choice(near), rng.choice(near)) for _ in range(3))]


def _many(numbers: list[int], rng: Random) -> list[Arguments]:
    near = _near(numbers)
    return [([],), (near,), (near[::-1],), *(([rng.choice(near) for _ in range(rng.randint(1, 6))],) for _ in range(7))]


def _text(numbers: list[int], rng: Random) -> list[Arguments]:
    return [(_word(length, rng),) for length in _near(numbers)]


def _word(length: int, rng: Random) -> str:
    return rng.choice("abcdeiou") * length


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "band": Family(
            '''
def $name(value: int) -> str:
    """A for $c and more, B for $b and more, C for $a and more, otherwise F."""
    if value >= $c:
        return "A"
    if value >= $b:
        return "B"
    if value >= $a:
        return "C"
    return "F"
''',
            _one,
            numbers=3,
        ),
        "clamp": Family(
            '''
def $name(value: int) -> int:
    """The value, but never below $a and never above $b."""
    if value < $a:
        return $a
    if value > $b:
        return $b
    return value
''',
            _one,
        ),
        "fee": Family(
            '''
def $name(value: int) -> int:
    """$a for each value, and $b more for all of them together; nothing where there are none."""
    if value == 0:
        return 0
    return $a * value + $b
''',
            _one,
        ),
        "capped": Family(
            '''
def $name(value: int) -> int:
    """$a for each value, but at most $b."""
    total = $a * value
    return min(total, $b)
''',
            _one,
        ),
        "within": Family(
            '''
def $name(value: int) -> bool:
    """Whether the value is at least $a and less than $b."""
    return value >= $a and value < $b
''',
            _one,
        ),
        "outside": Family(
            '''
def $name(value: int) -> bool:
    """Whether the value is less than $a or more than $b."""
    return value < $a or value > $b
''',
            _one,
        ),
        "rebate": Family(
            '''
def $name(value: int) -> int:
    """The value less $a, where it is $b or more; otherwise the value."""
    if value >= $b:
        return value - $a
    return value
''',
            _one,
        ),
        "packs": Family(
            '''
def $name(value: int) -> int:
    """How many packs of $b hold the value, one of them for what is left, and $a more."""
    packs = value // $b
    if value % $b > 0:
        packs = packs + 1
    return packs + $a
''',
            _one,
        ),
        "turn": Family(
            '''
def $name(value: int) -> int:
    """What is left of the value after turns of $b, and $a more."""
    return value % $b + $a
''',
            _one,
        ),
        "delay": Family(
            '''
def $name(value: int) -> int:
    """$a, doubled as often as the value says, but at most $b."""
    delay = $a
    for _ in range(value):
        delay = delay * 2
    return min(delay, $b)
''',
            _one,
        ),
        "tax": Family(
            '''
def $name(value: int) -> int:
    """Of the value, what is above $b, $a times."""
    if value <= $b:
        return 0
    return (value - $b) * $a
''',
            _one,
        ),
        "points": Family(
            '''
def $name(value: int, misses: int) -> int:
    """$b for each value, less $a for each miss, but never below 0."""
    points = $b * value - $a * misses
    return max(points, 0)
''',
            _two,
        ),
        "bigger": Family(
            '''
def $name(value: int, other: int) -> int:
    """The larger of the value and the other, and $a more where both are above $b."""
    larger = max(value, other)
    if value > $b and other > $b:
        larger = larger + $a
    return larger
''',
            _two,
        ),
        "worth": Family(
            '''
def $name(values: list[int]) -> int:
    """$b for each of the values that is above $a."""
    worth = 0
    for each in values:
        if each > $a:
            worth = worth + $b
    return worth
''',
            _many,
        ),
        "total": Family(
            '''
def $name(values: list[int]) -> int:
    """The sum of the values, of which none counts for more than $b, and $a more."""
    total = $a
    for each in values:
        total = total + min(each, $b)
    return total
''',
            _many,
        ),
        "kept": Family(
            '''
def $name(values: list[int]) -> list[int]:
    """The values from $a to $b, both included."""
    return [each for each in values if each >= $a and each <= $b]
''',
            _many,
        ),
        "moved": Family(
            '''
def $name(values: list[int]) -> list[int]:
    """Each value and $a more, where it is below $b; the others as they are."""
    moved = []
    for each in values:
        if each < $b:
            each = each + $a
        moved.append(each)
    return moved
''',
            _many,
        ),
        "found": Family(
            '''
def $name(values: list[int]) -> int:
    """Where the first value above $a stands; $b where there is none."""
    for at in range(0, len(values)):
        if values[at] > $a:
            return at
    return $b
''',
            _many,
        ),
        "short": Family(
            '''
def $name(text: str) -> str:
    """The text; one of more than $b letters is cut after $a, and has a dot there."""
    if len(text) > $b:
        return text[:$a] + "."
    return text
''',
            _text,
        ),
        "fits": Family(
            '''
def $name(text: str) -> bool:
    """Whether the text has at least $a letters and at most $b."""
    return len(text) >= $a and len(text) <= $b
''',
            _text,
        ),
    }
)
"""The kinds of functions there are, by what their names begin with."""

ABOUT = (
    *("price", "score", "speed", "stock", "order", "level", "budget", "signal", "ticket", "sample", "route", "meter"),
    *("weight", "volume", "depth", "height", "load", "rate", "share", "delta", "count", "batch", "queue", "cargo"),
)
"""What a function may be about, which its name says."""
