"""The parts of PPO's loss by their documented names: means over tokens, for loops of one's own.

Axes: B sequences, T tokens, V vocabulary. ``mask`` is 1 where a token counts; all do where it is left out.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from fettle.advantages import explained_variance
from fettle.losses import LOSSES
from fettle.losses.value import value

Metrics = dict[str, float]


def compute_ppo_loss(
    log_probs: Float[Tensor, "B T"],
    old_log_probs: Float[Tensor, "B T"],
    advantages: Float[Tensor, "B T"],
    clip_range: float = 0.2,
    mask: Float[Tensor, "B T"] | None = None,
) -> tuple[Float[Tensor, ""], Metrics]:
    """The clipped surrogate; ``loss/policy``, and ``diagnostics/approx_kl`` (k3) and ``diagnostics/clip_fraction``."""
    values, told = LOSSES["ppo"].function(
        log_probs, sampling_logprobs=old_log_probs, advantages=advantages, clip_low=clip_range, clip_high=clip_range
    )
    loss = _mean(values, mask)
    return loss, {
        "loss/policy": float(loss.detach()),
        "diagnostics/approx_kl": float(_mean(told["kl_sampler"], mask)),
        "diagnostics/clip_fraction": float(_mean(told["clip_fraction"], mask)),
    }


def compute_value_loss(
    values: Float[Tensor, "B T"],
    returns: Float[Tensor, "B T"],
    old_values: Float[Tensor, "B T"] | None = None,
    clip_range: float | None = None,
    mask: Float[Tensor, "B T"] | None = None,
) -> Float[Tensor, ""]:
    """Half the squared error; with ``old_values`` and ``clip_range``, of two the worse at each token."""
    clip = clip_range if old_values is not None else None
    errors, _ = value(values, returns=returns, old_values=values if old_values is None else old_values, clip=clip)
    return _mean(errors, mask)


def compute_entropy_bonus(
    logits: Float[Tensor, "B T V"], mask: Float[Tensor, "B T"] | None = None
) -> Float[Tensor, ""]:
    """The entropy of the whole softmax, ``-Σ_a π_a log π_a``, with its gradient."""
    logprobs = logits.log_softmax(-1)
    return _mean(-(logprobs.exp() * logprobs).sum(-1), mask)


def compute_ppo_total_loss(
    log_probs: Float[Tensor, "B T"],
    old_log_probs: Float[Tensor, "B T"],
    advantages: Float[Tensor, "B T"],
    values: Float[Tensor, "B T"],
    returns: Float[Tensor, "B T"],
    logits: Float[Tensor, "B T V"],
    *,
    old_values: Float[Tensor, "B T"] | None = None,
    clip_range: float = 0.2,
    value_clip_range: float | None = None,
    value_loss_coef: float = 0.5,
    entropy_coef: float = 0.01,
    mask: Float[Tensor, "B T"] | None = None,
) -> tuple[Float[Tensor, ""], Metrics]:
    """``policy + value_loss_coef · value - entropy_coef · entropy``, and every documented metric.

    ``diagnostics/explained_variance`` is not cut at -1; where all returns are equal there is none.
    """
    policy, metrics = compute_ppo_loss(log_probs, old_log_probs, advantages, clip_range, mask)
    critic = compute_value_loss(values, returns, old_values, value_clip_range, mask)
    entropy = compute_entropy_bonus(logits, mask)
    total = policy + value_loss_coef * critic - entropy_coef * entropy
    counted = torch.ones_like(returns) if mask is None else mask
    before = values if old_values is None else old_values
    explained = explained_variance(*([x.detach().cpu().numpy().ravel()] for x in (before, returns, counted)))
    return total, {
        **metrics,
        "loss/value": float(critic.detach()),
        "loss/entropy": float(entropy.detach()),
        "loss/total": float(total.detach()),
        **({} if explained is None else {"diagnostics/explained_variance": explained}),
    }


def _mean(values: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return values.mean()
    # Zeros first: what is masked may be anything, and 0 * inf is no number.
    return torch.where(mask > 0, values, 0).sum() / mask.sum()
