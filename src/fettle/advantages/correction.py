"""Correction for a sampler whose probabilities are not quite the trainer's, as where another program samples.

Yao et al., 2025, "Your efficient RL framework secretly brings you off-policy RL training"; the idea of cutting the
weights is that of Ionides, 2008, "Truncated importance sampling". Axes: T tokens of one sequence.
"""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from fettle.advantages.finite import Doubles, one_a_token
from fettle.types import Floats


def mismatch_weights(
    policy_logprobs: Floats | Doubles,
    sampling_logprobs: Floats | Doubles,
    loss_mask: Floats,
    *,
    kind: Literal["truncate", "mask"],
    cap: float = 2.0,
    level: Literal["token", "sequence"] = "token",
) -> Floats:
    """What each trained token's loss is multiplied by, [T]: ``w = π/μ``, cut; 0 where masked.

    π is the trainer's probability under the weights that drew, and μ the sampler's. At the level of the ``sequence``,
    ``w`` is the product over its trained tokens, and the same for all of them. ``truncate`` gives ``min(w, cap)``;
    ``mask`` gives ``w`` where ``1/cap ≤ w ≤ cap`` and 0 elsewhere (Ling Team, 2025, arXiv:2510.18855). An infinite
    ``cap`` cuts nothing, which is unbiased at the level of the sequence, and of great variance.

    Raises:
        LossInputError: a log-probability is not a finite number, or the arrays are not of one length.
    """
    log_ratio = _log_ratio(policy_logprobs, sampling_logprobs, loss_mask)
    if level == "sequence":
        log_ratio = np.full_like(log_ratio, log_ratio.sum())
    limit = math.log(cap)
    # Cut before it is exponentiated, so that nothing overflows.
    kept = np.minimum(log_ratio, limit)
    if kind == "mask":
        kept = np.where(np.abs(log_ratio) <= limit, log_ratio, -np.inf)
    return np.where(loss_mask > 0, np.exp(kept), 0).astype(np.float32)


def mismatch(
    policy_logprobs: Sequence[Floats | Doubles],
    sampling_logprobs: Sequence[Floats | Doubles],
    loss_masks: Sequence[Floats],
) -> dict[str, float]:
    """How far trainer and sampler are apart over the trained tokens of a batch, as metrics; none without tokens.

    The mean and the greatest of ``|log π - log μ|``, and the effective sample size of the uncut weights of tokens as a
    share, ``mean(w)² / mean(w²)``: 1 where the two agree.

    Raises:
        LossInputError: a log-probability is not a finite number, or the arrays are not of one length.
    """
    batch = zip(policy_logprobs, sampling_logprobs, loss_masks, strict=True)
    found = [_log_ratio(policy, sampling, mask)[mask > 0] for policy, sampling, mask in batch]
    log_ratio = np.concatenate(found) if found else np.zeros(0)
    if not log_ratio.size:
        return {}
    # The share is the same whatever the weights are divided by.
    weights = np.exp(log_ratio - log_ratio.max())
    return {
        "policy/mismatch": float(np.abs(log_ratio).mean()),
        "policy/mismatch_max": float(np.abs(log_ratio).max()),
        "policy/mismatch_effective_sample_size": float(weights.mean() ** 2 / np.square(weights).mean()),
    }


def _log_ratio(policy_logprobs: Floats | Doubles, sampling_logprobs: Floats | Doubles, loss_mask: Floats) -> Doubles:
    policy = one_a_token("policy log-probability", policy_logprobs, loss_mask)
    sampling = one_a_token("sampling log-probability", sampling_logprobs, loss_mask)
    return np.where(loss_mask > 0, policy - sampling, 0)
