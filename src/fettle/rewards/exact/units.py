"""Units: what stands before or after a number, and what it is worth in others of its kind."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType

TABLE: Mapping[str, Mapping[tuple[str, ...], str]] = {
    "length": {
        ("mm", "millimeter", "millimetre"): "0.001",
        ("cm", "centimeter", "centimetre"): "0.01",
        ("m", "meter", "metre"): "1",
        ("km", "kilometer", "kilometre"): "1000",
        ("in", "inch", "inche"): "0.0254",
        ("ft", "foot", "feet"): "0.3048",
        ("yd", "yard"): "0.9144",
        ("mi", "mile"): "1609.344",
    },
    "mass": {
        ("mg", "milligram"): "0.001",
        ("g", "gram"): "1",
        ("kg", "kilogram"): "1000",
    },
    "time": {
        ("s", "sec", "second"): "1",
        ("min", "minute"): "60",
        ("h", "hr", "hour"): "3600",
        ("day",): "86400",
        ("week",): "604800",
    },
    "volume": {
        ("ml", "mL", "milliliter", "millilitre"): "0.001",
        ("l", "L", "liter", "litre"): "1",
    },
    "dollars": {("$", "dollar", "usd", "USD"): "1", ("cent", "¢"): "0.01"},
    "euros": {("euro", "EUR"): "1"},
    "pounds sterling": {("pound",): "1"},
    "angle": {("degree", "deg"): "1"},
    "share": {("%", "percent"): "0.01"},
}
UNITS: Mapping[str, tuple[str, Fraction]] = MappingProxyType(
    {name: (kind, Fraction(worth)) for kind, rows in TABLE.items() for names, worth in rows.items() for name in names}
)
"""For each name, what it measures, and how many of its kind's first unit it is."""

RAISED: Mapping[str, int] = MappingProxyType({"square": 2, "sq": 2, "cubic": 3, "cu": 3})
BEFORE = re.compile(r"(-?)\s*(\$|dollars|euros|pounds|USD|EUR)\s*(?=[-0-9.(√÷])")
AFTER = re.compile(r"(?<=[0-9)}.π])(?P<gap>\s*)(?P<words>[%$¢]|[a-zA-Z][a-zA-Z .]*)(?:\^\{?(?P<power>[23])\}?)?$")
MOST_WORDS = 2
SHORTEST_NOUN = 3


@dataclass(frozen=True, slots=True)
class Unit:
    """What a number counts: ``worth`` of the first unit of ``kind``, or a thing by its name."""

    kind: str
    worth: Fraction = Fraction(1)
    power: int = 1


def without_unit(text: str) -> tuple[str, Unit | None]:
    """A plain text without the unit at its end or its beginning, and that unit.

    >>> without_unit("18 cm^2")
    ('18', Unit(kind='length', worth=Fraction(1, 100), power=2))
    """
    before = BEFORE.match(text)
    if before is not None:
        return before.group(1) + text[before.end() :], _named(before.group(2).removesuffix("s"), 1)
    after = AFTER.search(text)
    if after is None:
        return text, None
    words = after["words"].replace(".", "").split()
    unit = _unit(words, int(after["power"] or 1), apart=bool(after["gap"]))
    return (text, None) if unit is None else (text[: after.start()].rstrip(), unit)


def _unit(words: list[str], power: int, *, apart: bool) -> Unit | None:
    """The unit that some words name; a single letter right after a number is a variable and no unit."""
    if not words or len(words) > MOST_WORDS or (len(words[0]) == 1 and words[0].isalpha() and not apart):
        return None
    if words[0].lower() in RAISED and power == 1 and len(words) > 1:
        power, words = RAISED[words[0].lower()], words[1:]
    name = " ".join(words)
    for known in (name, name.lower(), _singular(name.lower())):
        if known in UNITS:
            return _named(known, power)
    noun = len(words[0]) >= SHORTEST_NOUN and all(word.isalpha() for word in words)
    return Unit(_singular(name.lower()), power=power) if noun else None


def _named(name: str, power: int) -> Unit | None:
    known = UNITS.get(name) or UNITS.get(name.lower())
    return None if known is None else Unit(known[0], known[1], power)


def _singular(name: str) -> str:
    return name.removesuffix("s") if len(name) > SHORTEST_NOUN else name
