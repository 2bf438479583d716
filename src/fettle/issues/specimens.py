"""Small functions that are right, out of which a corpus of problems is made by putting mistakes into them.

No two are the same: each is of a family, about something of its own, and with numbers of its own, all of which its
docstring says.
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
    """Functions that differ in what they are about, ``$x``, and in their numbers, of which ``$a`` is the least."""

    source: str
    calls: Callable[[list[int], Random], list[Arguments]]
    """Given the numbers."""
    numbers: int = 2
    least: int = 2
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
    about = rng.choice(ABOUT)
    given = dict(zip("abc", map(str, numbers), strict=False))
    source = Template(family.source).substitute(given, x=about, name=f"{kind}_of_{about}")
    calls = {repr(call): call for call in family.calls(numbers, rng)}
    return Specimen(f"{kind}_of_{about}", source.lstrip("\n"), tuple(calls.values()))


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


def _long(numbers: list[int], rng: Random) -> list[Arguments]:
    """Lists about as long as the numbers say."""
    return [([rng.randrange(10) for _ in range(length)],) for length in _near(numbers)]


def _text(numbers: list[int], rng: Random) -> list[Arguments]:
    return [(_word(length, rng),) for length in _near(numbers)]


def _words(numbers: list[int], rng: Random) -> list[Arguments]:
    texts = [[_word(rng.choice(_near(numbers)), rng) for _ in range(rng.randint(2, 4))] for _ in range(5)]
    return [*_text(numbers, rng), *((" ".join(words),) for words in texts)]


def _word(length: int, rng: Random) -> str:
    return "".join(rng.choice("abcdeiou") for _ in range(length))


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "band": Family(
            '''
def $name($x: int) -> str:
    """A for $c and more, B for $b and more, C for $a and more, otherwise F."""
    if $x >= $c:
        return "A"
    if $x >= $b:
        return "B"
    if $x >= $a:
        return "C"
    return "F"
''',
            _one,
            numbers=3,
        ),
        "clamp": Family(
            '''
def $name($x: int) -> int:
    """The $x, but never below $a and never above $b."""
    if $x < $a:
        return $a
    if $x > $b:
        return $b
    return $x
''',
            _one,
        ),
        "fee": Family(
            '''
def $name($x: int) -> int:
    """$a for each $x, and $b more for all of them together; nothing where there are none."""
    if $x == 0:
        return 0
    return $a * $x + $b
''',
            _one,
        ),
        "capped": Family(
            '''
def $name($x: int) -> int:
    """$a for each $x, but at most $b."""
    total = $a * $x
    return min(total, $b)
''',
            _one,
        ),
        "within": Family(
            '''
def $name($x: int) -> bool:
    """Whether the $x is at least $a and less than $b."""
    return $x >= $a and $x < $b
''',
            _one,
        ),
        "outside": Family(
            '''
def $name($x: int) -> bool:
    """Whether the $x is less than $a or more than $b."""
    return $x < $a or $x > $b
''',
            _one,
        ),
        "rebate": Family(
            '''
def $name($x: int) -> int:
    """The $x less $a, where it is $b or more; otherwise the $x."""
    if $x >= $b:
        return $x - $a
    return $x
''',
            _one,
        ),
        "packs": Family(
            '''
def $name($x: int) -> int:
    """How many packs of $b hold the $x, one of them for what is left, and $a more."""
    packs = $x // $b
    if $x % $b > 0:
        packs = packs + 1
    return packs + $a
''',
            _one,
        ),
        "turn": Family(
            '''
def $name($x: int) -> int:
    """What is left of the $x after turns of $b, and $a more."""
    return $x % $b + $a
''',
            _one,
        ),
        "delay": Family(
            '''
def $name($x: int) -> int:
    """$a, doubled as often as the $x says, but at most $b."""
    delay = $a
    for _ in range($x):
        delay = delay * 2
    return min(delay, $b)
''',
            _one,
        ),
        "tax": Family(
            '''
def $name($x: int) -> int:
    """Of the $x, what is above $b, $a times."""
    if $x <= $b:
        return 0
    return ($x - $b) * $a
''',
            _one,
        ),
        "points": Family(
            '''
def $name($x: int, misses: int) -> int:
    """$b for each $x, less $a for each miss, but never below 0."""
    points = $b * $x - $a * misses
    return max(points, 0)
''',
            _two,
        ),
        "bigger": Family(
            '''
def $name($x: int, other: int) -> int:
    """The larger of the $x and the other, and $a more where both are above $b."""
    larger = max($x, other)
    if $x > $b and other > $b:
        larger = larger + $a
    return larger
''',
            _two,
        ),
        "worth": Family(
            '''
def $name($x: list[int]) -> int:
    """$b for each of the values that is above $a."""
    worth = 0
    for value in $x:
        if value > $a:
            worth = worth + $b
    return worth
''',
            _many,
        ),
        "total": Family(
            '''
def $name($x: list[int]) -> int:
    """The sum of the values, of which none counts for more than $b, and $a more."""
    total = $a
    for value in $x:
        total = total + min(value, $b)
    return total
''',
            _many,
        ),
        "kept": Family(
            '''
def $name($x: list[int]) -> list[int]:
    """The values from $a to $b, both included."""
    return [value for value in $x if value >= $a and value <= $b]
''',
            _many,
        ),
        "moved": Family(
            '''
def $name($x: list[int]) -> list[int]:
    """Each value and $a more, where it is below $b; the others as they are."""
    moved = []
    for value in $x:
        if value < $b:
            value = value + $a
        moved.append(value)
    return moved
''',
            _many,
        ),
        "found": Family(
            '''
def $name($x: list[int]) -> int:
    """Where the first value above $a stands; $b where there is none."""
    for at in range(0, len($x)):
        if $x[at] > $a:
            return at
    return $b
''',
            _many,
        ),
        "ends": Family(
            '''
def $name($x: list[int]) -> list[int]:
    """The first $b of the values, but without the first $a."""
    return $x[$a:$b]
''',
            _long,
            most=30,
        ),
        "thinned": Family(
            '''
def $name($x: list[int]) -> list[int]:
    """Every $a of the values one, beginning with the one after the first $b."""
    return $x[$b::$a]
''',
            _long,
            most=30,
        ),
        "short": Family(
            '''
def $name($x: str) -> str:
    """The text; one of more than $b letters is cut after $a, and has a dot there."""
    if len($x) > $b:
        return $x[:$a] + "."
    return $x
''',
            _text,
        ),
        "wide": Family(
            '''
def $name($x: str) -> str:
    """The text, and as many dots after it as make it $b wide, and $a more."""
    missing = max($b - len($x), 0)
    return $x + "." * (missing + $a)
''',
            _text,
        ),
        "fits": Family(
            '''
def $name($x: str) -> bool:
    """Whether the text has at least $a letters and at most $b."""
    return len($x) >= $a and len($x) <= $b
''',
            _text,
        ),
        "named": Family(
            '''
def $name($x: str) -> list[str]:
    """The words of more than $a letters and fewer than $b."""
    words = []
    for word in $x.split():
        if len(word) > $a and len(word) < $b:
            words.append(word)
    return words
''',
            _words,
            most=30,
        ),
    }
)
"""The kinds of functions there are, by what their names begin with."""

ABOUT = (
    *("price", "score", "speed", "stock", "order", "level", "budget", "signal", "ticket", "sample", "route", "meter"),
    *("weight", "volume", "depth", "height", "load", "rate", "share", "delta", "count", "batch", "queue", "cargo"),
)
"""What a function may be about, which its name and its first argument say."""
