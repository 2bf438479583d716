"""Forms: what an answer may be. A quantity, several of them, a tuple or an interval, ranges, named values, or words."""

import re
from dataclasses import dataclass

from fettle.rewards.exact.numbers import Number
from fettle.rewards.exact.reading import number
from fettle.rewards.exact.units import Unit, without_unit

MOST_ITEMS = 40
NAME = r"[a-zA-Z](?:_(?:[0-9a-zA-Z]|\{[0-9a-zA-Z]+\}))?(?:\([a-zA-Z]\))?"
NAMED = re.compile(rf"({NAME})\s*(?:=|∈)\s*(?=\S)")
OPENING, CLOSING = "([{«", ")]}»"
COMPARED = re.compile(r"[<>≤≥]")
ITEM_BREAK = re.compile(r",(?:\s*(?:and|or)(?![a-zA-Z]))?|;|(?<![a-zA-Z])(?:and|or)(?![a-zA-Z])")
THOUSANDS = re.compile(r"(?<![0-9.,])([0-9]{1,3}(?:,[0-9]{3})+)(?![0-9,])")
WORDS = re.compile(r"[a-zA-Z][a-zA-Z' -]*")


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number with what it counts."""

    number: Number
    unit: Unit | None = None
    unfinished: bool = False


@dataclass(frozen=True, slots=True)
class Several:
    """Quantities in no order, each once: a set, or answers that are listed."""

    items: frozenset[Quantity]


@dataclass(frozen=True, slots=True)
class Row:
    """Things in order between brackets; two quantities may be the ends of an interval."""

    opening: str
    items: tuple["Form", ...]
    closing: str


@dataclass(frozen=True, slots=True)
class Range:
    """From one end to another; None is without end."""

    low: Number | None
    includes_low: bool
    high: Number | None
    includes_high: bool
    unfinished: bool = False
    """Whether an end still has to be worked out."""


@dataclass(frozen=True, slots=True)
class Ranges:
    """The numbers that lie in one of several ranges."""

    ranges: frozenset[Range]


@dataclass(frozen=True, slots=True)
class Values:
    """Names and what each of them is."""

    values: tuple[tuple[str, Quantity], ...]


@dataclass(frozen=True, slots=True)
class Words:
    """A word or a few, or the letter of a choice."""

    text: str


Form = Quantity | Several | Row | Ranges | Values | Words


@dataclass(frozen=True, slots=True)
class Answer:
    """A form, and the one name that it was said to be the value of."""

    form: Form
    name: str = ""


def read(text: str) -> Answer | None:
    """What ``text`` (in the small alphabet) says; None where it cannot be read exactly."""
    text = THOUSANDS.sub(lambda found: found.group(1).replace(",", ""), text) if text[:1] not in "([«" else text
    return _ranges(text) or _listed(text) or _single(text)


def _single(text: str) -> Answer | None:
    named = NAMED.match(text)
    name, rest = (named.group(1), text[named.end() :]) if named is not None else ("", text)
    if not name:
        form = _form(rest)
        return None if form is None else Answer(form)
    inner = read(rest)
    return None if inner is None or inner.name or isinstance(inner.form, Words) else Answer(inner.form, name)


def _form(text: str) -> Form | None:
    return _bracketed(text) or _either(text) or _quantity(text) or _words(text)


def _quantity(text: str) -> Quantity | None:
    bare, unit = without_unit(text)
    found = number(bare)
    return None if found is None else Quantity(found.number, unit, found.unfinished)


def _words(text: str) -> Words | None:
    inside = text[1:-1] if re.fullmatch(r"\([a-zA-Z]\)", text) else text
    return Words(inside.strip()) if WORDS.fullmatch(inside) else None


def _either(text: str) -> Several | None:
    """Both of what a ``±`` stands for."""
    if text.count("±") != 1:
        return None
    ends = [_quantity(text.replace("±", sign, 1).strip().removeprefix("+")) for sign in "+-"]
    return None if None in ends else Several(frozenset(end for end in ends if end is not None))


def _bracketed(text: str) -> Form | None:
    opening, closing = text[:1], text[-1:]
    if not opening or opening not in OPENING or closing not in CLOSING or not _closes_at_end(text):
        return None
    items = [_item(part) for part in _split(text[1:-1])]
    if not items or len(items) > MOST_ITEMS or None in items:
        return None
    found = tuple(item for item in items if item is not None)
    if opening in "«{":
        quantities = [item for item in found if isinstance(item, Quantity)]
        return Several(frozenset(quantities)) if len(quantities) == len(found) else None
    if len(found) == 1 and opening == "(":
        return found[0] if isinstance(found[0], Quantity) else None
    return Row(opening, found, closing)


def _item(text: str) -> Form | None:
    """One thing between brackets; an infinite end is a word of its own."""
    text = text.strip()
    return Words(text.lstrip("+")) if text in ("∞", "+∞", "-∞") else _form(text)


def _listed(text: str) -> Answer | None:
    """Several answers one after another, each with or without a name."""
    parts = [part.strip() for part in _split(text)]
    if not 1 < len(parts) <= MOST_ITEMS:
        return None
    answers = [_single(part) for part in parts]
    names, found = [], []
    for answer in answers:
        if answer is None or not isinstance(answer.form, Quantity | Several):
            return None
        names.append(answer.name)
        found.append(answer.form)
    if all(names) and len(set(names)) == len(names) and all(isinstance(form, Quantity) for form in found):
        return Answer(Values(tuple(sorted(zip(names, found, strict=True)))))  # type: ignore[arg-type]
    if len(set(names) - {""}) > 1:
        return None
    items = [item for form in found for item in (form.items if isinstance(form, Several) else (form,))]
    return Answer(Several(frozenset(items)), max(names))


def _split(text: str) -> list[str]:
    """The parts between commas, semicolons, ``and`` and ``or`` that stand in no bracket."""
    parts, start = [], 0
    for found in ITEM_BREAK.finditer(text):
        if _open_at(text, found.start()) == 0:
            parts.append(text[start : found.start()])
            start = found.end()
    return [*parts, text[start:]]


def _open_at(text: str, place: int) -> int:
    before = text[:place]
    return sum(before.count(sign) for sign in OPENING) - sum(before.count(sign) for sign in CLOSING)


def _closes_at_end(text: str) -> bool:
    """Whether the first bracket is closed by the last sign, and not before."""
    return all(_open_at(text, place) > 0 for place in range(1, len(text))) and _open_at(text, len(text)) == 0


def _ranges(text: str) -> Answer | None:
    """Ranges as inequalities of one name, or as intervals that are united."""
    if COMPARED.search(text):
        parts = re.split(r"(?<![a-zA-Z])or(?![a-zA-Z])|∪", text)
        found = [_compared(part) for part in parts]
        names = {each[0] for each in found if each is not None}
        ranges = frozenset(each[1] for each in found if each is not None)
        return Answer(Ranges(ranges), names.pop()) if None not in found and len(names) == 1 else None
    if "∪" not in text:
        return None
    named = NAMED.match(text)
    parts = text[named.end() if named is not None else 0 :].split("∪")
    forms = [_bracketed(part.strip()) for part in parts]
    intervals = [range_of(form) for form in forms if form is not None]
    if len(intervals) != len(parts) or None in intervals:
        return None
    kept = frozenset(each for each in intervals if each is not None)
    return Answer(Ranges(kept), named.group(1) if named is not None else "")


def range_of(form: Form) -> Range | None:
    """The range that a row of two ends is."""
    if not isinstance(form, Row) or len(form.items) != 2:
        return None
    ends: list[Number | None] = []
    for item, endless in zip(form.items, ("-∞", "∞"), strict=True):
        if isinstance(item, Quantity) and item.unit is None:
            ends.append(item.number)
        elif isinstance(item, Words) and item.text == endless:
            ends.append(None)
        else:
            return None
    low, high = ends
    includes_low, includes_high = form.opening == "[" and low is not None, form.closing == "]" and high is not None
    unfinished = any(item.unfinished for item in form.items if isinstance(item, Quantity))
    return Range(low, includes_low, high, includes_high, unfinished)


def _compared(text: str) -> tuple[str, Range] | None:
    """A name and its range: ``x > 3``, ``2 < x ≤ 5``, or two such joined by ``and``."""
    found = [_chain(part.strip()) for part in re.split(r"(?<![a-zA-Z])and(?![a-zA-Z])|,", text)]
    if None in found or len(found) > 2:
        return None
    (name, first), *rest = [each for each in found if each is not None]
    if not rest:
        return name, first
    other_name, second = rest[0]
    low, high = (first, second) if first.high is None else (second, first)
    one_sided = low.high is None and high.low is None and low.low is not None and high.high is not None
    if name != other_name or not one_sided:
        return None
    return name, Range(low.low, low.includes_low, high.high, high.includes_high, low.unfinished or high.unfinished)


def _chain(text: str) -> tuple[str, Range] | None:
    """One comparison or two, of a name with numbers."""
    parts = [part.strip() for part in COMPARED.split(text)]
    signs = COMPARED.findall(text)
    places = [place for place, part in enumerate(parts) if re.fullmatch(NAME, part)]
    if len(places) != 1 or len(signs) not in (1, 2) or len({sign in "<≤" for sign in signs}) != 1:
        return None
    (at,) = places
    numbers = {place: number(part) for place, part in enumerate(parts) if place != at}
    if None in numbers.values() or (len(signs) == 2 and at != 1):
        return None
    if signs[0] in ">≥":
        parts, signs, at = parts[::-1], signs[::-1], len(parts) - 1 - at
        numbers = {len(parts) - 1 - place: each for place, each in numbers.items()}
    low, high = numbers.get(at - 1), numbers.get(at + 1)
    return parts[at], Range(
        low.number if low else None,
        bool(low) and signs[at - 1] in "≤≥",
        high.number if high else None,
        bool(high) and signs[at] in "≤≥",
        any(each.unfinished for each in numbers.values() if each is not None),
    )
