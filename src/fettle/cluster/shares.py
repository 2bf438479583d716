"""Requests shared out among ranks, each whole, and their answers put back in order."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from fettle.cluster.hearing import Ear, Hear, overheard
from fettle.engine.base import Pooling, ReadRequest, SampleRequest
from fettle.types import Completion, Floats, PromptReading, Tokens

Said = tuple[tuple[Any, ...], dict[str, Any]]
"""What an operation is called with: by position, and by name."""


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


class Share(Protocol):
    """Has each of several ranks answer some requests."""

    def __call__(
        self, operation: str, weights: Sequence[str], costs: Sequence[int], part: Callable[[Sequence[int]], Said], /
    ) -> list[Any]:
        """The answers to requests of these costs; ``part`` says what a rank is told that is to answer some of them."""
        ...


@dataclass(frozen=True, slots=True)
class Readers:
    """What is read of weights, each request by one of several ranks: the part of a ``Backend`` that changes nothing."""

    share: Share
    pins: Mapping[str, str]
    """The policy of each, as it is at any time."""
    parted: bool
    """Whether layers are parted among the ranks, which then hold one version of a policy at a time."""
    hear: Hear | None = None
    """How what is being drawn is heard of; None where it is told at its end."""

    def sample(self, weights: Sequence[str], requests: Sequence[SampleRequest]) -> list[list[Completion]]:
        """Each rank some of the requests, in a decode batch of its own."""
        policies = [policy for name in set(weights) if (policy := self.pins.get(name)) is not None]
        if self.parted and len(set(policies)) < len(policies):
            return self._sampled_apart(weights, requests)
        return overheard(requests, self.hear, partial(self._drawn, weights))

    def logprobs(self, weights: str, sequences: Sequence[Tokens], *, temperature: float) -> list[Floats]:
        """Each rank some of the sequences."""
        return self._of_sequences("logprobs", weights, sequences, temperature=temperature)

    def scores(self, weights: str, sequences: Sequence[Tokens]) -> list[float]:
        """Each rank some of the sequences."""
        return self._of_sequences("scores", weights, sequences)

    def read(self, weights: str, requests: Sequence[ReadRequest]) -> list[PromptReading]:
        """Each rank some of the requests."""
        costs = [len(each.tokens) for each in requests]
        return self.share("read", [weights], costs, lambda share: ((weights, [requests[i] for i in share]), {}))

    def embed(self, weights: str, sequences: Sequence[Tokens], *, layer: int, pooling: Pooling) -> list[Floats]:
        """Each rank some of the sequences."""
        return self._of_sequences("embed", weights, sequences, layer=layer, pooling=pooling)

    def _drawn(self, weights: Sequence[str], ear: Ear) -> list[list[Completion]]:
        asked = ear.elsewhere()
        costs = [each.n * (len(each.prompt) + each.params.max_tokens) for each in asked]
        return self.share(
            "sample", weights, costs, lambda share: (([weights[i] for i in share], [asked[i] for i in share]), {})
        )

    def _sampled_apart(self, weights: Sequence[str], requests: Sequence[SampleRequest]) -> list[list[Completion]]:
        found: list[list[Completion]] = [[] for _ in requests]
        for name in dict.fromkeys(weights):
            places = [place for place, each in enumerate(weights) if each == name]
            drawn = self.sample([name] * len(places), [requests[place] for place in places])
            for place, completions in zip(places, drawn, strict=True):
                found[place] = completions
        return found

    def _of_sequences(self, operation: str, weights: str, sequences: Sequence[Tokens], **how: Any) -> list[Any]:
        costs = [len(each) for each in sequences]
        return self.share(operation, [weights], costs, lambda share: ((weights, [sequences[i] for i in share]), how))
