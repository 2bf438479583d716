"""Claims with evidence for and against them: made up about who beats whom, or from a file."""

from collections.abc import Iterator, Mapping, Sequence
from random import Random
from types import MappingProxyType
from typing import NamedTuple

from fettle.environments.generated import prompt
from fettle.errors import DataError
from fettle.rows import Row, rows
from fettle.types import Task

NAME = "debate"
COLOURS = ("red", "blue", "green", "gold", "black", "white")
GOOD = ("unbeaten", "strong", "fast", "trained", "rested", "calm", "ready", "eager", "tall", "lucky")
BAD = ("injured", "ill", "tired", "weak", "slow", "divided", "late", "nervous", "small", "unlucky")
"""What can be known of a side, the weightiest first."""
WORTH: Mapping[str, float] = MappingProxyType(
    {word: float(len(GOOD) - place) for place, word in enumerate(GOOD)}
    | {word: float(place - len(BAD)) for place, word in enumerate(BAD)}
)
"""How much each word speaks for the side that it is said of."""


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
    """That one side beats another, with what is known of the first: something for the claim, and something against."""
    first, second = rng.sample(COLOURS, 2)
    while True:
        drawn = [Piece(f"{first} is {word}", WORTH[word]) for word in rng.sample(list(WORTH), pieces)]
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
