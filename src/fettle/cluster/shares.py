"""Requests shared out among ranks, each whole, and their answers put back in order."""

from collections.abc import Sequence
from typing import Any

from fettle.engine.base import SampleRequest
from fettle.types import Completion


def dealt(costs: Sequence[int], ranks: int) -> list[list[int]]:
    """Which requests each rank gets: the dearest first, to whoever has least; in the order of the requests."""
    shares: list[list[int]] = [[] for _ in range(ranks)]
    loads = [0] * ranks
    for place in sorted(range(len(costs)), key=lambda place: (-costs[place], place)):
        least = loads.index(min(loads))
        shares[least].append(place)
        loads[least] += costs[place]
    return [sorted(share) for share in shares]


def gathered(shares: Sequence[Sequence[int]], answers: Sequence[Sequence[Any] | None]) -> list[Any]:
    """The answers of all ranks in the order of the requests."""
    found: list[Any] = [None] * sum(map(len, shares))
    for share, own in zip(shares, answers, strict=True):
        for place, answer in zip(share, own or (), strict=True):
            found[place] = answer
    return found


def tell(request: SampleRequest, completions: Sequence[Completion]) -> None:
    """Tell a watch of all tokens, late: nothing is drawn less for what it says."""
    for index, completion in enumerate(completions if request.watch is not None else ()):
        for token, logprob in zip(completion.tokens, completion.logprobs, strict=True):
            if request.watch is not None and not request.watch(index, int(token), float(logprob)):
                return
