"""Preferences: two replies to one prompt, one of them chosen over the other."""

from collections.abc import Iterable
from dataclasses import dataclass

from fettle.data.replies import Prompt, prompt, reply, shared_prompt
from fettle.errors import DataError
from fettle.rows import Row, rows

PAIR = ("prompt", "chosen", "rejected", "margin", "metadata")
COMPARISON = ("prompt", "a", "b", "winner", "margin", "metadata")


@dataclass(frozen=True, slots=True)
class Preference:
    """A reply that was chosen over another."""

    prompt: Prompt
    chosen: str
    rejected: str
    margin: float = 0.0
    """How much better the chosen one is said to be, in units of reward."""


def preferences(path: str) -> list[Preference]:
    """The pairs of a file, in order: of ``chosen`` and ``rejected``, or of ``a``, ``b`` and the ``winner``.

    ``prompt`` and replies are texts or messages; without a ``prompt``, both replies are whole conversations.
    ``margin`` may stand beside them, and ``metadata``, which is not read.

    Raises:
        DataError: a row lacks a reply, says nothing, prefers nothing to itself, or holds what nobody reads; or there
            are no rows.
    """
    found = [_preferred(row) if "winner" in row.fields else _pair(row) for row in rows(path)]
    if not found:
        raise DataError(f"{path} is empty: give one pair a line")
    return found


def from_comparisons(compared: Iterable[Row]) -> list[Preference]:
    """For each row of ``prompt``, ``a`` and ``b``, the one that ``winner`` names chosen over the other.

    Raises:
        DataError: as :func:`preferences` does; or a winner is neither a nor b.
    """
    return [_preferred(row) for row in compared]


def _pair(row: Row) -> Preference:
    row.check_keys(PAIR)
    _check_partners(row, "chosen", "rejected")
    return _preference(row, "chosen", "rejected")


def _preferred(row: Row) -> Preference:
    row.check_keys(COMPARISON)
    _check_partners(row, "a", "b")
    winner = row.fields.get("winner")
    if winner not in ("a", "b"):
        raise DataError(
            f"{row.place}: winner is {winner!r}: it must be a or b, and a draw prefers nothing: leave it out"
        )
    return _preference(row, winner, "b" if winner == "a" else "a")


def _preference(row: Row, chosen: str, rejected: str) -> Preference:
    asked = prompt(row) if "prompt" in row.fields else shared_prompt(row, (chosen, rejected))
    better, worse = reply(row, chosen, asked), reply(row, rejected, asked)
    if better == worse:
        raise DataError(f"{row.place}: {chosen} and {rejected} are the same, and so nothing is preferred: leave it out")
    return Preference(asked, better, worse, row.number("margin") if "margin" in row.fields else 0.0)


def _check_partners(row: Row, *names: str) -> None:
    for name in names:
        if name not in row.fields:
            raise DataError(f"{row.place}: {name} is missing: a pair is {' and '.join(names)}")
