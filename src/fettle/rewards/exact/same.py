"""Whether two answers say the same: yes, no, or not to be told exactly."""

from collections.abc import Callable
from dataclasses import replace

from fettle.rewards.exact.forms import (
    Answer,
    Form,
    Quantity,
    Range,
    Ranges,
    Row,
    Several,
    Values,
    Words,
    range_of,
    read,
)
from fettle.rewards.exact.notation import compact, plain
from fettle.rewards.exact.numbers import Number, rational


def same(expected: str, answer: str) -> bool | None:
    """Whether ``answer`` is the ``expected`` one; None where that is not decided here.

    >>> same("3/4", "0.75"), same("x = 3", "4"), same("x^2 + 1", "1 + x^2")
    (True, False, None)
    """
    right, given = plain(expected), plain(answer)
    if given is None or not given:
        return False
    if right is None:
        return None
    if compact(right) == compact(given):
        return True
    wanted, said = read(right), read(given)
    if wanted is None or (said is None and not _is_rational(wanted.form)):
        return None
    if said is None:  # it may be worth the same, but what is written out in full can be answered in full
        return False
    return _named_alike(wanted, said) and _alike(wanted.form, said.form)


def _is_rational(form: Form) -> bool:
    """Whether every number in it is a fraction, so that each way to write it that is no question can be read."""
    if isinstance(form, Quantity):
        return form.number.fraction is not None
    if isinstance(form, Several | Row):
        return all(map(_is_rational, form.items))
    if isinstance(form, Values):
        return all(_is_rational(value) for _, value in form.values)
    if isinstance(form, Ranges):
        ends = (end for each in form.ranges for end in (each.low, each.high) if end is not None)
        return all(end.fraction is not None for end in ends)
    return True


def _named_alike(wanted: Answer, said: Answer) -> bool:
    return not wanted.name or not said.name or wanted.name == said.name


def _alike(wanted: Form, said: Form) -> bool:
    wanted, said = _plainest(wanted), _plainest(said)
    if isinstance(wanted, Ranges) or isinstance(said, Ranges):
        return _ranges_alike(_as_ranges(wanted), _as_ranges(said))
    if isinstance(wanted, Row) and isinstance(said, Values):
        return _rows_alike(wanted, _row_of(said))
    if isinstance(wanted, Values) and isinstance(said, Row):
        return _rows_alike(_row_of(wanted), said)
    compare = COMPARED.get(type(wanted))
    return compare is not None and type(wanted) is type(said) and compare(wanted, said)


def _plainest(form: Form) -> Form:
    """A single answer in braces is that answer."""
    if isinstance(form, Several) and len(form.items) == 1:
        return next(iter(form.items))
    return form


def _as_ranges(form: Form) -> frozenset[Range] | None:
    if isinstance(form, Ranges):
        return form.ranges
    interval = range_of(form)
    return None if interval is None else frozenset({interval})


def _ranges_alike(wanted: frozenset[Range] | None, said: frozenset[Range] | None) -> bool:
    """The same ranges; what was expected may have been written with ends to work out."""
    if wanted is None or said is None:
        return False
    return {replace(each, unfinished=False) for each in wanted} == said


def _row_of(values: Values) -> Row:
    """Named values in the order of their names, as a point is written."""
    return Row("(", tuple(value for _, value in values.values), ")")


def _quantities_alike(wanted: Quantity, said: Quantity) -> bool:
    """Numbers and units are the same; a unit may be left out, or be added where none was asked for."""
    if said.unfinished:
        return False
    if wanted.unit is not None and said.unit is not None:
        same_kind = (wanted.unit.kind, wanted.unit.power) == (said.unit.kind, said.unit.power)
        return same_kind and _in_first_units(wanted) == _in_first_units(said)
    shared = (wanted.unit or said.unit) is not None and "share" in {u.kind for u in (wanted.unit, said.unit) if u}
    return wanted.number == said.number or (shared and _in_first_units(wanted) == _in_first_units(said))


def _in_first_units(quantity: Quantity) -> Number:
    if quantity.unit is None:
        return quantity.number
    return quantity.number * rational(quantity.unit.worth**quantity.unit.power)


def _several_alike(wanted: Several, said: Several) -> bool:
    """Each of the one is one of the other, and the other way round."""
    if len(wanted.items) != len(said.items):
        return False
    left = list(said.items)
    for item in wanted.items:
        found = next((other for other in left if _quantities_alike(item, other)), None)
        if found is None:
            return False
        left.remove(found)
    return True


def _rows_alike(wanted: Row, said: Row) -> bool:
    brackets = (wanted.opening, wanted.closing) == (said.opening, said.closing)
    return brackets and len(wanted.items) == len(said.items) and all(map(_alike, wanted.items, said.items))


def _values_alike(wanted: Values, said: Values) -> bool:
    names = [name for name, _ in wanted.values] == [name for name, _ in said.values]
    return names and all(_alike(one, other) for (_, one), (_, other) in zip(wanted.values, said.values, strict=True))


def _words_alike(wanted: Words, said: Words) -> bool:
    """Letter for letter; only what is longer than the name of a variable may be in capitals or not."""
    if len(wanted.text) == 1:
        return wanted.text == said.text
    return wanted.text.casefold() == said.text.casefold()


COMPARED: dict[type, Callable[..., bool]] = {
    Quantity: _quantities_alike,
    Several: _several_alike,
    Row: _rows_alike,
    Values: _values_alike,
    Words: _words_alike,
}
