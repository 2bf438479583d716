"""A sampler that computes other probabilities than the trainer, and says so truthfully of what it draws."""

import asyncio
import random

import numpy as np

from fettle.config import SamplingParams
from fettle.engine import Sampler
from fettle.types import Completion, Datum, Tokens, datum

PROMPT = [5, 6, 7]


class Skewed:
    """Satisfies ``Sampler``, for replies of one token: what another one says, with noise on its logits.

    The log-probabilities that it gives are those of what it really drew from.
    """

    def __init__(self, inner: Sampler, *, vocabulary: int, noise: float) -> None:
        self.policy_version = inner.policy_version
        self._inner = inner
        self._noise = np.random.default_rng(0).normal(0, noise, vocabulary)

    async def distribution(self, prompt: Tokens) -> np.ndarray:
        """The log-probability of each token after ``prompt``."""
        true = await exact(self._inner, prompt, len(self._noise))
        skewed = true + self._noise
        return skewed - np.log(np.exp(skewed).sum())

    async def sample(self, prompt: Tokens, n: int, params: SamplingParams) -> list[Completion]:
        assert params.max_tokens == 1
        logprobs = await self.distribution(prompt)
        tokens = random.Random(params.seed).choices(range(len(logprobs)), np.exp(logprobs), k=n)
        return [Completion([token], [float(logprobs[token])], "length", self.policy_version) for token in tokens]

    async def logprobs(self, tokens: Tokens, *, temperature: float = 1.0) -> list[float | None]:
        return await self._inner.logprobs(tokens, temperature=temperature)

    async def score(self, tokens: Tokens) -> float:
        return await self._inner.score(tokens)


async def exact(sampler: Sampler, prompt: Tokens, vocabulary: int) -> np.ndarray:
    """The log-probability of each token of a vocabulary after ``prompt``."""
    said = await asyncio.gather(*(sampler.logprobs([*prompt, token]) for token in range(vocabulary)))
    return np.array([row[-1] for row in said])


def every_reply(drawn_by: np.ndarray, *, sign: float = 1.0) -> list[Datum]:
    """All replies of one token, each as heavy as it was likely to be drawn: an expectation without noise."""
    rewards = np.random.default_rng(1).normal(size=len(drawn_by))
    nothing = [0.0] * len(PROMPT)
    return [
        datum(
            [*PROMPT, token],
            [*nothing, 1.0],
            sampling_logprobs=[*nothing, logprob],
            advantages=[*nothing, sign * reward],
            weights=[*nothing, np.exp(logprob)],
        )
        for token, (logprob, reward) in enumerate(zip(drawn_by, rewards, strict=True))
    ]
