"""Ratings: single replies called good or bad."""

from dataclasses import dataclass

from fettle.data.replies import Prompt, prompt, reply
from fettle.errors import DataError
from fettle.rows import Row, rows


@dataclass(frozen=True, slots=True)
class Rating:
    """A reply, and whether more like it are wanted."""

    prompt: Prompt
    completion: str
    desirable: bool


def ratings(path: str) -> list[Rating]:
    """The rated replies of a file, in order: rows of ``prompt``, ``completion`` and a ``label``, true or false.

    Raises:
        DataError: a row lacks one of these, says nothing, or holds what nobody reads; or there are no rows.
    """
    found = [_rating(row) for row in rows(path)]
    if not found:
        raise DataError(f"{path} is empty: give one rated reply a line")
    return found


def _rating(row: Row) -> Rating:
    row.check_keys(("prompt", "completion", "label", "metadata"))
    label = row.fields.get("label")
    if not isinstance(label, bool):
        raise DataError(f"{row.place}: label is {label!r}: it must be true for a good reply or false for a bad one")
    asked = prompt(row)
    return Rating(asked, reply(row, "completion", asked), label)
