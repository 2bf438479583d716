"""Policy-gradient losses.

Notation: π is the policy being trained, μ the sampler that drew the tokens, A the advantages, r = π/μ the
importance ratio, sg the stop-gradient. Axes: B sequences, T tokens.

Every metric is one value a token: ``ratio``; ``kl_sampler``, the k3 estimate of KL(μ‖π); and, where there is
a clip, ``clip_fraction``, 1 where it binds. ``clip_fraction_low`` and ``clip_fraction_high`` part it by bound.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from fettle.losses.kl import LOG_RATIO_LIMIT, k3


def importance_sampling(
    logprobs: Float[Tensor, "B T"],
    *,
    sampling_logprobs: Float[Tensor, "B T"],
    advantages: Float[Tensor, "B T"],
    loss_mask: Float[Tensor, "B T"],
    level: Literal["token", "sequence"] = "token",
    form: Literal["truncated", "cispo"] = "truncated",
    clip_ratio: float | None = None,
) -> tuple[Float[Tensor, "B T"], dict[str, Tensor]]:
    """REINFORCE (Williams, 1992) corrected for who drew the tokens; on policy it is REINFORCE::

        truncated  L = -min(r, c) A                (Ionides, 2008): no gradient where r is above the cap c
        cispo      L = -sg(min(r, c)) A log π      (arXiv:2506.13585): bounded weight, and every token teaches

    At the level of sequences r is ``π(y)/μ(y) = exp(Σ log π_t/μ_t)`` over the sequence's trained tokens, and each of
    them holds it. The objective ``E[r A]`` of whole sequences is then made, truncated, by weights that give each
    sequence the same total (``sequence_mean``), as the gradient of r reaches all of its tokens; and, in the other form,
    by ``sequence_sum``. ``ratio`` is r before the cap, ``ratio_squared`` its second moment.
    """
    log_ratio = logprobs - sampling_logprobs
    if level == "sequence":
        trained = (loss_mask > 0).to(logprobs.dtype)
        log_ratio = (log_ratio * trained).sum(-1, keepdim=True).expand_as(logprobs)
    ratio = _ratio(log_ratio)
    weight = ratio if clip_ratio is None else ratio.clamp(max=clip_ratio)
    loss = -weight * advantages if form == "truncated" else -weight.detach() * advantages * logprobs
    metrics = _distances(logprobs, sampling_logprobs, ratio)
    drawn = metrics["ratio"]
    extremes = {"ratio_max": drawn, "ratio_min": drawn, "ratio_squared": drawn.square()}
    return loss, metrics | extremes | {"clip_fraction": (drawn > weight.detach()).to(drawn.dtype)}


def ppo(
    logprobs: Float[Tensor, "B T"],
    *,
    sampling_logprobs: Float[Tensor, "B T"],
    advantages: Float[Tensor, "B T"],
    clip_low: float = 0.2,
    clip_high: float = 0.2,
) -> tuple[Float[Tensor, "B T"], dict[str, Tensor]]:
    """Clipped surrogate, eq. 7 of Schulman et al., 2017 (arXiv:1707.06347), with a bound for each side::

    L = -min(r A, clip(r, 1 - ε_low, 1 + ε_high) A)
    """
    ratio = _ratio(logprobs - sampling_logprobs)
    loss, clipped = _clipped_surrogate(ratio, advantages, clip_low, clip_high)
    return loss, _distances(logprobs, sampling_logprobs, ratio) | clipped


def cispo(
    logprobs: Float[Tensor, "B T"],
    *,
    sampling_logprobs: Float[Tensor, "B T"],
    advantages: Float[Tensor, "B T"],
    ratio_low: float = 0.0,
    ratio_high: float = 4.0,
) -> tuple[Float[Tensor, "B T"], dict[str, Tensor]]:
    """REINFORCE weighted by a clipped ratio, eq. 4 of MiniMax, 2025 (arXiv:2506.13585)::

        L = -sg(clip(r, low, high)) A log π

    A clipped token keeps its gradient; only its weight is bounded.
    """
    ratio = _ratio(logprobs - sampling_logprobs).detach()
    weight = ratio.clamp(ratio_low, ratio_high)
    clipped = (weight != ratio).to(ratio.dtype)
    return -weight * advantages * logprobs, _distances(logprobs, sampling_logprobs, ratio) | {"clip_fraction": clipped}


def gspo(
    logprobs: Float[Tensor, "B T"],
    *,
    sampling_logprobs: Float[Tensor, "B T"],
    advantages: Float[Tensor, "B T"],
    sequence_ratio_mask: Float[Tensor, "B T"],
    level: Literal["sequence", "token"] = "sequence",
    clip_low: float = 3e-4,
    clip_high: float = 4e-4,
) -> tuple[Float[Tensor, "B T"], dict[str, Tensor]]:
    """The clipped surrogate with one ratio a sequence, eq. 5, 7 and 14 of Zheng et al., 2025 (arXiv:2507.18071)::

        s = (π(y) / μ(y))^(1/|y|) = exp(mean over counted t of log π_t/μ_t)
        s_t = s                      (sequence)
        s_t = sg(s) π_t / sg(π_t)    (token: GSPO-token)
        L_t = -min(s_t A_t, clip(s_t, 1 - ε_low, 1 + ε_high) A_t)

    The tokens that count are those whose ``sequence_ratio_mask`` is not 0. Every token of a sequence holds the
    sequence's value, so that weights which give each sequence the same total make the paper's objective. The gradient
    of s reaches all tokens that count, that of the other form the token itself: with one advantage and one weight a
    sequence they are the same. ``ratio`` here is s.
    """
    counted = (sequence_ratio_mask != 0).to(logprobs.dtype)
    length = counted.sum(-1, keepdim=True).clamp(min=1)
    log_ratio = ((logprobs - sampling_logprobs) * counted).sum(-1, keepdim=True) / length
    ratio = _ratio(log_ratio).expand_as(logprobs)
    if level == "token":
        ratio = ratio.detach() * (logprobs - logprobs.detach()).exp()
    loss, clipped = _clipped_surrogate(ratio, advantages, clip_low, clip_high)
    return loss, _distances(logprobs, sampling_logprobs, ratio) | clipped


def dro(
    logprobs: Float[Tensor, "B T"],
    *,
    sampling_logprobs: Float[Tensor, "B T"],
    advantages: Float[Tensor, "B T"],
    beta: float = 0.05,
) -> tuple[Float[Tensor, "B T"], dict[str, Tensor]]:
    """Direct reward optimisation, the policy's half of Richemond et al., 2024 (arXiv:2405.19107), token by token::

    L = -(A log π - β/2 (log π/μ)²)
    """
    log_ratio = logprobs - sampling_logprobs
    loss = -(advantages * logprobs - beta / 2 * log_ratio.square())
    return loss, _distances(logprobs, sampling_logprobs, _ratio(log_ratio))


def _ratio(log_ratio: Tensor) -> Tensor:
    return log_ratio.clamp(max=LOG_RATIO_LIMIT).exp()


def _clipped_surrogate(
    ratio: Tensor, advantages: Tensor, clip_low: float, clip_high: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss, and where the clip took its gradient: above for credit, below for blame."""
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
    loss = -torch.minimum(ratio * advantages, clipped * advantages)
    low = (ratio < clipped) & (advantages < 0)
    high = (ratio > clipped) & (advantages > 0)
    where = {"clip_fraction": low | high, "clip_fraction_low": low, "clip_fraction_high": high}
    return loss, {name: binds.to(ratio.dtype) for name, binds in where.items()}


def _distances(logprobs: Tensor, sampling_logprobs: Tensor, ratio: Tensor) -> dict[str, Tensor]:
    return {"ratio": ratio.detach(), "kl_sampler": k3(sampling_logprobs, logprobs.detach())}
