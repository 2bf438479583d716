"""Drawing: logits in, tokens and their log-probabilities out, every row by its own settings.

A row with temperature 0 takes its likeliest token. Its log-probability is the one under the model's own
distribution (temperature 1): the point mass that it was strictly drawn from would give 0 for every token, and
a ratio against the same weights would then not be 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from fettle.config import SamplingParams
from fettle.errors import ModelError
from fettle.randomness import key

BLOCK = 64
"""Tokens whose probabilities are added up before the search looks among them."""
UNITS = 2.0**40
"""Probabilities are counted in units of 1 / UNITS."""
FEW, FEW_ROWS, FINE_UNITS = 1 << 16, 64, 2.0**55
"""So few probabilities are all added up rather than searched by block: there calls cost more than sums. Units are
finer, since no block's sum stands for tokens of less than one; the sums of so many rows fit into 64 bits."""


def uniforms(seed: int, index: int, count: int) -> NDArray[np.float64]:
    """``count`` numbers in [0, 1), one a position, that depend on ``seed`` and the completion's ``index`` only."""
    return np.random.Generator(np.random.Philox(key=key(seed, "sample", index))).random(count)


class Limits(NamedTuple):
    """Top-k and top-p of the rows that ask for either."""

    rows: Tensor  # [b] of the batch's B rows
    top_k: Tensor  # [b]
    top_p: Tensor  # [b], infinite for no limit
    widest: int
    """The largest ``top_k``."""


class Asked(NamedTuple):
    """The rows that ask for the likeliest tokens, and for how many the greediest of them."""

    rows: NDArray[np.int64]  # [b] of the batch's B rows
    widest: int


@dataclass(frozen=True, slots=True)
class Settings:
    """How the rows of a batch are drawn; None where no row asks."""

    temperatures: Tensor | None  # [B, 1]
    limits: Limits | None
    greedy: Tensor | None  # [B] of bool
    untempered: bool
    """Whether log-probabilities under the model's own distribution are wanted besides."""
    top: Asked | None


class Top(NamedTuple):
    """The likeliest tokens under the model's own distribution, likeliest first, with their log-probabilities."""

    tokens: Tensor  # [b, k]
    logprobs: Tensor  # [b, k]


class Drawn(NamedTuple):
    """One token a row."""

    tokens: Tensor  # [B]
    logprobs: Tensor  # [B], of the distribution that was drawn from
    untempered: Tensor | None  # [B], under the model's own distribution
    top: Top | None
    """Of the rows that ask."""


class SettingsTable:
    """The settings of all requests of a call, from which a batch's are read."""

    def __init__(self, params: Sequence[SamplingParams], vocabulary: int) -> None:
        self._greedy = np.array([p.temperature == 0 for p in params])
        self._temperatures = np.array([p.temperature or 1.0 for p in params], dtype=np.float32)
        top_k = np.array([p.top_k or vocabulary for p in params])
        top_p = np.array([p.top_p if p.top_p < 1 else np.inf for p in params])
        self._top_k = np.where(self._greedy, vocabulary, np.minimum(top_k, vocabulary))
        self._top_p = np.where(self._greedy, np.inf, top_p)
        self._limited = (self._top_k < vocabulary) | np.isfinite(self._top_p)
        self._untempered = any(p.untempered_logprobs for p in params)
        self._top = np.array([min(p.top_logprobs, vocabulary) for p in params])

    def settings(self, requests: NDArray[np.int64], device: torch.device) -> Settings:
        """Those of a batch whose rows belong to ``requests`` [B]."""

        def tensor(values: NDArray[np.generic]) -> Tensor:
            return torch.from_numpy(values).to(device)

        temperatures, greedy = self._temperatures[requests], self._greedy[requests]
        rows = np.flatnonzero(self._limited[requests])
        limits = None
        if rows.size:
            top_k, top_p = self._top_k[requests[rows]], self._top_p[requests[rows]]
            limits = Limits(tensor(rows), tensor(top_k), tensor(top_p), int(top_k.max()))
        asking = np.flatnonzero(self._top[requests])
        return Settings(
            temperatures=tensor(temperatures[:, None]) if (temperatures != 1).any() else None,
            limits=limits,
            greedy=tensor(greedy) if greedy.any() else None,
            untempered=self._untempered,
            top=Asked(asking, int(self._top[requests].max())) if asking.size else None,
        )


def draw(logits: Tensor, settings: Settings, uniform: Tensor) -> Drawn:
    """One token for each row of ``logits`` [B, V], by inverse CDF from ``uniform`` [B] of float64.

    The log-probability comes from the very softmax that was drawn from: after the temperature, then top-k, then
    top-p of what top-k leaves, renormalised.

    Raises:
        ModelError: the logits are not finite.
    """
    own = logits.float()
    shaped = own if settings.temperatures is None else own / settings.temperatures
    if settings.limits is not None:
        shaped = limited(shaped, settings.limits)
    probs = shaped.softmax(-1)
    if probs[:, 0].isnan().any():  # a logit that is no number makes its whole row so
        raise ModelError(
            "the model's logits are not finite, so there is nothing to draw from: its weights have diverged"
        )
    tokens = inverse_cdf(probs, uniform)
    if settings.greedy is not None:
        tokens = torch.where(settings.greedy, own.argmax(-1), tokens)
    logprobs = probs.gather(1, tokens[:, None])[:, 0].log()
    untempered = None
    if settings.untempered:
        untempered = logprobs if shaped is own else own.gather(1, tokens[:, None])[:, 0] - own.logsumexp(-1)
    return Drawn(tokens, logprobs, untempered, None if settings.top is None else likeliest(own, settings.top))


def likeliest(logits: Tensor, asked: Asked) -> Top:
    """Of the rows of ``logits`` [B, V] that ask."""
    own = logits[torch.from_numpy(asked.rows).to(logits.device)]
    values, tokens = own.topk(asked.widest)
    return Top(tokens, values - own.logsumexp(-1, keepdim=True))


def limited(logits: Tensor, limits: Limits) -> Tensor:
    """``logits`` [B, V] with -inf wherever top-k, or top-p of what top-k leaves, rules a token out.

    Exactly k tokens pass top-k; top-p keeps the likeliest tokens up to the one with which they reach p.
    """
    rows = logits[limits.rows]  # [b, V]
    values, order = rows.topk(limits.widest)  # likeliest first
    rank = torch.arange(limits.widest, device=logits.device)
    values = values.masked_fill(rank >= limits.top_k[:, None], float("-inf"))
    probs = values.softmax(-1).double()
    likelier = probs.cumsum(-1) - probs  # mass of the tokens before this one
    values = values.masked_fill(likelier >= limits.top_p[:, None], float("-inf"))
    return logits.index_copy(0, limits.rows, torch.full_like(rows, float("-inf")).scatter(1, order, values))


def inverse_cdf(probs: Tensor, uniform: Tensor) -> Tensor:
    """The token [B] at which the running sum of ``probs`` [B, V] passes ``uniform`` [B] of float64.

    Blocks are searched first, then the tokens of one block, so that only [B, V / BLOCK + BLOCK] numbers are summed
    up with care.
    """
    if probs.numel() <= FEW and len(probs) <= FEW_ROWS and probs.device.type == "cpu" and probs.dtype == torch.float32:
        return torch.from_numpy(_inverse_cdf_of_few(probs.numpy(), uniform.numpy()))
    batch, vocabulary = probs.shape
    blocks = pad(probs, (0, -vocabulary % BLOCK)).view(batch, -1, BLOCK)
    block, rest = _searched(blocks.sum(-1), uniform)
    within = blocks[torch.arange(batch, device=probs.device), block]  # [B, BLOCK]
    # A block's sum may round to a unit where each of its tokens rounds to none: shares of the sum do not.
    token, _ = _searched(within / within.sum(-1, keepdim=True), rest)
    return block * BLOCK + token


def _inverse_cdf_of_few(probs: NDArray[np.float32], uniform: NDArray[np.float64]) -> NDArray[np.int64]:
    """The same by one running sum, in which each row begins where the one before ends."""
    batch, vocabulary = probs.shape
    sums = (probs * np.float32(FINE_UNITS)).astype(np.int64).cumsum()
    ends = sums[vocabulary - 1 :: vocabulary]
    starts = np.zeros_like(ends)
    starts[1:] = ends[:-1]
    positions = np.minimum(starts + (uniform * (ends - starts)).astype(np.int64), ends - 1)  # a product may round up
    found: NDArray[np.int64] = sums.searchsorted(positions, side="right") - np.arange(0, batch * vocabulary, vocabulary)
    return found


def _searched(weights: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """The entry [B] of ``weights`` [B, N] that ``uniform`` falls on, and how far into it, in [0, 1).

    Weights add up to about 1 and are counted in whole units, whose sums are exact in any order: a weight of 0 is never
    chosen, and the search never runs off the end.
    """
    counts = (weights * UNITS).long()
    ends = counts.cumsum(-1)
    position = uniform * ends[:, -1]
    index = torch.searchsorted(ends, position.long()[:, None], right=True)
    count = counts.gather(1, index)[:, 0]
    rest = (position - (ends.gather(1, index)[:, 0] - count)) / count
    return index[:, 0], rest
