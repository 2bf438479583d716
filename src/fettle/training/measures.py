"""Measures of what a model says, and of how far it is from another.

Axes: V the vocabulary; ``...`` any further axes, such as tokens.
"""

import math
import statistics
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fettle.advantages.finite import Doubles
from fettle.errors import ConfigError, DataError, LossInputError
from fettle.types import Floats, Tokens


def pass_at_k(correct: int, samples: int, k: int) -> float:
    """The chance that at least one of ``k`` completions is right, from ``samples`` of which ``correct`` are.

    ``1 - C(n - c, k) / C(n, k)``, which is unbiased (Chen et al., 2021, arXiv:2107.03374).

    Raises:
        ConfigError: fewer completions were drawn than ``k``, or ``k`` is not a number of completions.
        DataError: there cannot be so many right ones.
    """
    if not 1 <= k <= samples:
        raise ConfigError(f"pass@{k} cannot be told from {samples} completions a task: draw more, or lower k")
    if not 0 <= correct <= samples:
        raise DataError(f"{correct} of {samples} completions cannot be right: count again")
    return 1 - math.comb(samples - correct, k) / math.comb(samples, k)


def distinct_n(sequences: Sequence[Tokens], n: int) -> float | None:
    """The share of different n-grams among all n-grams of the sequences; None where none is so long.

    After Li et al., 2016 (arXiv:1510.03055), who divide by the number of tokens.
    """
    grams = [tuple(tokens[at : at + n]) for tokens in sequences for at in range(len(tokens) - n + 1)]
    return len(set(grams)) / len(grams) if grams else None


def perplexity(nll_mean: float) -> float:
    """``exp`` of the mean negative log-likelihood of a token; infinite where that is beyond any number."""
    try:
        return math.exp(nll_mean)
    except OverflowError:
        return math.inf


def mean_length(sequences: Sequence[Tokens]) -> float | None:
    """Tokens in a sequence, on average; None without sequences."""
    return statistics.fmean(map(len, sequences)) if sequences else None


def exact_entropy(logits: Floats | Doubles) -> Doubles:
    """``H(p) = -Σ_a p_a log p_a`` in nats, from logits [..., V]: one number for each [...]."""
    logprobs = _log_softmax(logits)
    return -_expected(logprobs, logprobs)


def exact_kl(logits_p: Floats | Doubles, logits_q: Floats | Doubles) -> Doubles:
    """``KL(p‖q) = Σ_a p_a (log p_a - log q_a)`` in nats, from logits [..., V]: one number for each [...].

    Infinite where p may say what q never would.

    Raises:
        LossInputError: the two are not of one shape.
    """
    if np.shape(logits_p) != np.shape(logits_q):
        shapes = f"{list(np.shape(logits_p))} and {list(np.shape(logits_q))}"
        raise LossInputError(f"logits of shapes {shapes} cannot be compared: both must speak of the same tokens")
    p, q = _log_softmax(logits_p), _log_softmax(logits_q)
    return _expected(p, np.where(np.isneginf(p), 0, p) - q)


def _log_softmax(logits: Floats | Doubles) -> Doubles:
    values = np.asarray(logits, dtype=np.float64)
    shifted = values - values.max(axis=-1, keepdims=True)
    logprobs: Doubles = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return logprobs


def _expected(logprobs: Doubles, values: Doubles) -> NDArray[np.float64]:
    """``Σ_a p_a v_a``; what cannot happen counts for nothing, whatever its value."""
    possible = ~np.isneginf(logprobs)
    terms = np.exp(logprobs) * np.where(possible, values, 0)
    total: Doubles = terms.sum(axis=-1)
    return total
