"""Pairs of worked solutions to sums: a right one is chosen over one with a slip, or with its answer tags spoilt."""

from collections.abc import Iterable, Iterator
from random import Random

from fettle.data.preferences import Preference
from fettle.data.worked_sums import expression_of, solution
from fettle.randomness import key
from fettle.types import Task


def worked_pairs(tasks: Iterable[Task], *, malformed: float, seed: int) -> Iterator[Preference]:
    """Each task's prompt, its solution, and what that is chosen over.

    About a share ``malformed`` of the rejected work the sum out rightly, but lack the answer tags or repeat them; the
    others have their tags and a slip.

    Raises:
        DataError: a task holds no ``expression``, or one that is not a sum of whole numbers.
    """
    for index, task in enumerate(tasks):
        rng, expression = Random(key(seed, "pair", index)), expression_of(task)
        right = solution(expression, slip=False, rng=rng)
        spoilt = rng.random() < malformed
        yield Preference(
            task.prompt, right, _spoilt(right, rng) if spoilt else solution(expression, slip=True, rng=rng)
        )


def _spoilt(text: str, rng: Random) -> str:
    """The same work, and an answer that its tags no longer mark once."""
    work, _, answer = text.rpartition("\n")
    bare = answer.removeprefix("<answer>").removesuffix("</answer>")
    return f"{work}\n" + rng.choice((bare, f"<answer>{bare}", f"{bare}</answer>", f"{answer}\n{answer}"))
