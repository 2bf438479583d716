"""Whether samplers and the trainer mean the same: the log-probabilities that both give to fixed tokens."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from fettle.config import SamplingParams
from fettle.engine.base import SampleRequest
from fettle.errors import EngineError
from fettle.types import Completion, Floats, Tokens

SEQUENCES, LENGTH = 4, 24
"""How many sequences are scored, and how many tokens of each."""

Draw = Callable[[Sequence[SampleRequest]], list[list[Completion]]]


class Parity:
    """What is scored is drawn once for each policy, from its own first weights, and stays the same from then on."""

    def __init__(self, allowed: float) -> None:
        self._allowed = allowed
        self._probes: dict[str, list[Tokens]] = {}
        self.mean = self.max = 0.0
        """Of the differences, over all samplers, after the last update."""

    def probe(self, policy: str, draw: Draw) -> list[Tokens]:
        """The sequences, each of which begins with a token of its own."""
        if policy not in self._probes:
            params = SamplingParams(max_tokens=LENGTH, end_tokens=False)
            drawn = draw([SampleRequest([first], 1, params) for first in range(1, SEQUENCES + 1)])
            self._probes[policy] = [[first, *only.tokens] for first, [only] in enumerate(drawn, start=1)]
        return self._probes[policy]

    def forget(self, policy: str) -> None:
        """It was closed."""
        self._probes.pop(policy, None)

    def check(self, version: int, own: Sequence[Floats], others: Mapping[str, Sequence[Floats]]) -> None:
        """Compare what the trainer says of the probe with what each sampler says; [T] for a sequence.

        Raises:
            EngineError: a sampler is further from the trainer than is allowed.
        """
        mine = np.concatenate([each[1:] for each in own])
        apart = {name: np.abs(np.concatenate([each[1:] for each in theirs]) - mine) for name, theirs in others.items()}
        if not apart:
            return
        worst = max(apart, key=lambda name: _mean(apart[name]))
        self.mean = _mean(apart[worst])
        self.max = float(np.max(apart[worst])) if math.isfinite(self.mean) else math.inf
        if self.mean > self._allowed:
            raise EngineError(
                f"the sampler {worst} and the trainer do not mean the same by version {version} of the policy: their "
                f"log-probabilities of the same tokens are {self.mean:.3g} apart in the mean and {self.max:.3g} at "
                f"most, and engine.samplers.parity allows {self._allowed:g}; see whether it runs policy.model in the "
                "policy's precision and has taken these weights, or allow more"
            )


def _mean(apart: Floats) -> float:
    mean = float(np.mean(apart))
    return mean if math.isfinite(mean) else math.inf
