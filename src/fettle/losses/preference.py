"""Preference losses: of pairs (a chosen and a rejected reply to one prompt), and of single good and bad replies.

Notation: w the chosen, l the rejected; log π(y) the sum of the log-probabilities of a reply's trained tokens, log ρ(y)
that under the reference, |y| their number, at least 1; σ the logistic function. Axes: N pairs, B sequences.

Every metric is one value a pair or a sequence. A reply's reward is the one that its loss implies; ``reward_margin`` is
by how much the chosen's exceeds the rejected's, and ``preference_accuracy`` is 1 where it does: a tie counts as wrong.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

CERTAIN = -1e-6
"""Mean log-probabilities are cut here before odds are taken of them: at 0 the odds would be infinite. A reply that is
cut takes no gradient through its odds."""


def dpo(
    *,
    chosen_logprobs: Float[Tensor, " N"],
    rejected_logprobs: Float[Tensor, " N"],
    chosen_reference_logprobs: Float[Tensor, " N"],
    rejected_reference_logprobs: Float[Tensor, " N"],
    chosen_lengths: Float[Tensor, " N"],
    rejected_lengths: Float[Tensor, " N"],
    pair_margin: Float[Tensor, " N"],
    beta: float = 0.1,
    variant: Literal["sigmoid", "robust", "ipo", "hinge"] = "sigmoid",
    label_smoothing: float = 0.0,
    reference_free: bool = False,
    length_normalized: bool = False,
    margin: float = 0.0,
) -> tuple[Float[Tensor, " N"], dict[str, Tensor]]:
    """Direct preference optimisation, eq. 7 of Rafailov et al., 2023 (arXiv:2305.18290)::

        h = β [(log π(w) - log ρ(w)) - (log π(l) - log ρ(l))] - m
        sigmoid  L = -(1 - ε) log σ(h) - ε log σ(-h)                  (ε > 0: conservative; Mitchell, 2023)
        robust   L = [-(1 - ε) log σ(h) + ε log σ(-h)] / (1 - 2ε)     (Chowdhury et al., 2024, arXiv:2403.00409)
        ipo      L = (h/β - 1/(2β))²                                  (Azar et al., 2023, arXiv:2310.12036, eq. 17)
        hinge    L = max(0, 1 - h)                                    (Zhao et al., 2023, arXiv:2305.10425)

    m is ``margin`` plus ``pair_margin``, which the data may ask of a pair. ``length_normalized`` divides each log-ratio
    by |y|; IPO regresses to a fixed difference and is usually taken so. ``reference_free`` puts 0 for log ρ.
    The metric ``implicit_reward`` is ``reward_margin`` under its other name.
    """
    chosen, rejected = chosen_logprobs, rejected_logprobs
    if not reference_free:
        chosen, rejected = chosen - chosen_reference_logprobs, rejected - rejected_reference_logprobs
    if length_normalized:
        chosen, rejected = chosen / chosen_lengths, rejected / rejected_lengths
    metrics = _rewards(beta * chosen, beta * rejected)
    h = beta * (chosen - rejected) - margin - pair_margin
    loss = VARIANTS[variant](h, beta, label_smoothing)
    return loss, metrics | {"implicit_reward": metrics["reward_margin"]}


def simpo(
    *,
    chosen_logprobs: Float[Tensor, " N"],
    rejected_logprobs: Float[Tensor, " N"],
    chosen_lengths: Float[Tensor, " N"],
    rejected_lengths: Float[Tensor, " N"],
    beta: float = 2.0,
    target_margin: float = 1.0,
) -> tuple[Float[Tensor, " N"], dict[str, Tensor]]:
    """Simple preference optimisation, eq. 6 of Meng et al., 2024 (arXiv:2405.14734), with γ the target margin::

    L = -log σ(β/|w| log π(w) - β/|l| log π(l) - γ)
    """
    chosen = beta * chosen_logprobs / chosen_lengths
    rejected = beta * rejected_logprobs / rejected_lengths
    return -logsigmoid(chosen - rejected - target_margin), _rewards(chosen, rejected)


def orpo(
    *,
    chosen_logprobs: Float[Tensor, " N"],
    rejected_logprobs: Float[Tensor, " N"],
    chosen_lengths: Float[Tensor, " N"],
    rejected_lengths: Float[Tensor, " N"],
    beta: float = 0.1,
) -> tuple[Float[Tensor, " N"], dict[str, Tensor]]:
    """Odds-ratio preference optimisation, eq. 6 and 7 of Hong et al., 2024 (arXiv:2403.07691), with β for its λ::

        p(y) = exp(log π(y) / |y|),   odds(y) = p / (1 - p)
        L = -log p(w) - β log σ(log odds(w) - log odds(l))

    A reply's reward is ``β log p``; ``nll`` is the first term, nats per token of the chosen.
    """
    chosen, rejected = chosen_logprobs / chosen_lengths, rejected_logprobs / rejected_lengths
    nll = -chosen
    loss = nll - beta * logsigmoid(_log_odds(chosen) - _log_odds(rejected))
    return loss, _rewards(beta * chosen, beta * rejected) | {"nll": nll.detach()}


def kto(
    *,
    logprobs: Float[Tensor, " B"],
    reference_logprobs: Float[Tensor, " B"],
    preferred: Float[Tensor, " B"],
    kl_baseline: Float[Tensor, " B"],
    beta: float = 0.1,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> tuple[Float[Tensor, " B"], dict[str, Tensor]]:
    """Kahneman-Tversky optimisation, Ethayarajh et al., 2024 (arXiv:2402.01306)::

        r = log π(y) - log ρ(y)
        L = λ_D (1 - σ(β (r - z0)))   of a good reply,   λ_U (1 - σ(β (z0 - r)))   of a bad one

    z0 is ``kl_baseline``, an estimate of KL(π‖ρ) that takes no gradient and is cut at 0 by whoever makes it; a reply is
    good where ``preferred`` is 1. The weights are λ_D and λ_U.

    ``reward`` is β r. With no pairs there is no chosen or rejected reward: each would be a mean over a part of the
    batch. Over all of it: ``reward_margin`` is by how much β r is on its right side of β z0, above for a good reply and
    below for a bad one, and ``preference_accuracy`` is 1 where it is.
    """
    good = preferred > 0.5
    side = torch.where(good, 1.0, -1.0).to(logprobs.dtype)
    weight = torch.where(good, desirable_weight, undesirable_weight).to(logprobs.dtype)
    log_ratio = logprobs - reference_logprobs
    margin = side * beta * (log_ratio - kl_baseline)
    told = margin.detach()
    metrics = {
        "reward": beta * log_ratio.detach(),
        "reward_margin": told,
        "preference_accuracy": (told > 0).to(told.dtype),
    }
    return weight * torch.sigmoid(-margin), metrics


def _sigmoid(h: Tensor, beta: float, label_smoothing: float) -> Tensor:
    return -(1 - label_smoothing) * logsigmoid(h) - label_smoothing * logsigmoid(-h)


def _robust(h: Tensor, beta: float, label_smoothing: float) -> Tensor:
    right, wrong = -logsigmoid(h), -logsigmoid(-h)
    return ((1 - label_smoothing) * right - label_smoothing * wrong) / (1 - 2 * label_smoothing)


def _ipo(h: Tensor, beta: float, label_smoothing: float) -> Tensor:
    return (h / beta - 1 / (2 * beta)).square()


def _hinge(h: Tensor, beta: float, label_smoothing: float) -> Tensor:
    return torch.relu(1 - h)


VARIANTS: Mapping[str, Callable[[Tensor, float, float], Tensor]] = MappingProxyType(
    {"sigmoid": _sigmoid, "robust": _robust, "ipo": _ipo, "hinge": _hinge}
)
"""``(h, β, ε)`` to the loss, by the name that ``DPO.variant`` gives."""


def _log_odds(logprob: Tensor) -> Tensor:
    """``log p - log(1 - p)`` of log p."""
    certain = logprob.clamp(max=CERTAIN)
    return certain - torch.log(-torch.expm1(certain))


def _rewards(chosen: Tensor, rejected: Tensor) -> dict[str, Tensor]:
    chosen, rejected = chosen.detach(), rejected.detach()
    return {
        "chosen_reward": chosen,
        "rejected_reward": rejected,
        "reward_margin": chosen - rejected,
        "preference_accuracy": (chosen > rejected).to(chosen.dtype),
    }
