"""What is held out in a file of its own: as much of it as is wanted, and nothing that is trained on."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from fettle.data.splits import question
from fettle.errors import DataError
from fettle.randomness import key
from fettle.types import Message

Row = TypeVar("Row")


def held_apart(
    training: Sequence[Row],
    heldout: Sequence[Row],
    asked: Callable[[Row], Sequence[Message]],
    *,
    most: int,
    seed: int,
    path: str,
) -> list[Row]:
    """The rows of ``path`` that are scored on: of those that ask the same the first, and ``most`` by chance, in order.

    Raises:
        DataError: something is asked on both sides.
    """
    trained = {question(asked(row)) for row in training}
    first: dict[str, Row] = {}
    for row in heldout:
        first.setdefault(question(asked(row)), row)
    told = [text for text in first if text in trained]
    if told:
        raise DataError(f"{len(told)} of what {path} holds out is trained on, such as {told[0][:80]!r}: take it out")
    kept = frozenset(sorted(first, key=lambda text: key(seed, "heldout", text))[:most])
    return [row for text, row in first.items() if text in kept]
