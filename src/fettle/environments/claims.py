"""Claims with evidence for and against them: made up about small numbers, or from a file."""

from collections.abc import Iterator, Sequence
from random import Random
from typing import NamedTuple

from fettle.environments.generated import prompt
from fettle.errors import DataError
from fettle.rows import Row, rows
from fettle.types import Task

NAME = "debate"
COLOURS = ("red", "blue", "green", "gold", "black", "white")
LARGEST_LEAD = 10


class Piece(NamedTuple):
    """One piece of evidence."""

    text: str
    worth: float
    """How much it speaks for the claim; below 0, against it."""


def claim(statement: str, evidence: Sequence[Piece], *, system: str | None) -> Task:
    """The task of arguing over it. What its evidence is worth is never shown."""
    shown = "\n".join(f'"{piece.text}"' for piece in evidence)
    data = {"claim": statement, "evidence": [list(piece) for piece in evidence]}
    return Task(prompt(system, f"Claim: {statement}\n{shown}"), data, NAME)


def evidence_of(task: Task) -> list[Piece]:
    """The evidence of a claim."""
    return [Piece(*piece) for piece in task.data["evidence"]]


def drawn_claim(rng: Random, *, pieces: int, system: str | None) -> Task:
    """That one colour beats another, and by how much either won in matches, of which each has won one at least."""
    first, second = rng.sample(COLOURS, 2)
    ends = [(winner, lead) for winner in (first, second) for lead in range(1, LARGEST_LEAD + 1)]
    while True:
        drawn = [
            Piece(f"{winner} won by {lead}", float(lead if winner == first else -lead))
            for winner, lead in rng.sample(ends, pieces)
        ]
        if len({piece.worth > 0 for piece in drawn}) == 2:
            return claim(f"{first} beats {second}", drawn, system=system)


def listed_claims(path: str, *, system: str | None, judged_by_rule: bool) -> Iterator[Task]:
    """The claims of a file. What evidence is worth need not be told where the judge is no rule.

    Raises:
        DataError: a line lacks a claim or its evidence, or a rule could never let one of the sides win.
    """
    for row in rows(path):
        row.check_keys(("claim", "evidence"))
        given = row.fields.get("evidence")
        if not isinstance(given, list) or not given:
            raise DataError(f"{row.place}: evidence must be a list of objects with a text and a worth")
        evidence = [_piece(item, f"{row.place}: evidence[{at}]", judged_by_rule) for at, item in enumerate(given)]
        if judged_by_rule and len({piece.worth > 0 for piece in evidence if piece.worth}) < 2:
            raise DataError(
                f"{row.place}: all evidence is on one side: give a piece of positive and one of negative worth"
            )
        if len({piece.text for piece in evidence}) < len(evidence):
            raise DataError(f"{row.place}: two pieces of evidence are the same: leave one out")
        yield claim(row.text("claim"), evidence, system=system)


def _piece(item: object, place: str, judged_by_rule: bool) -> Piece:
    if not isinstance(item, dict):
        raise DataError(f"{place} must be an object with a text and a worth")
    row = Row(place, item)
    row.check_keys(("text", "worth"))
    text = " ".join(row.text("text").split())
    if '"' in text:
        raise DataError(f"{place}: text holds a quotation mark, and evidence is quoted in them: use single ones")
    return Piece(text, row.number("worth") if judged_by_rule or "worth" in item else 0.0)
