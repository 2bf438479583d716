"""Estimators of KL(π‖ρ), the divergence of the policy π from a reference ρ, at tokens drawn from π.

Schulman, "Approximating KL divergence" (2020). Axes: B sequences, T tokens.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from jaxtyping import Float
from torch import Tensor

from fettle.types import Floats

LOG_RATIO_LIMIT = 20.0
"""Log-ratios are cut here before they are exponentiated, so that no token overflows float32: beyond e^20 a ratio
says "far away" and nothing more. A token that is cut takes no gradient through its ratio."""


def k1(logprobs: Float[Tensor, "B T"], reference_logprobs: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """``log π/ρ``: unbiased, of either sign. Right in the reward; as a loss it has no expected gradient on policy."""
    return logprobs - reference_logprobs


def k2(logprobs: Float[Tensor, "B T"], reference_logprobs: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """``(log π/ρ)² / 2``: biased in value, yet as a loss its expected gradient on policy is that of KL(π‖ρ)."""
    return (logprobs - reference_logprobs).square() / 2


def k3(logprobs: Float[Tensor, "B T"], reference_logprobs: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """``ρ/π - 1 - log ρ/π``: unbiased, never negative. As a loss its expected gradient on policy is that of KL(ρ‖π)."""
    log_ratio = (reference_logprobs - logprobs).clamp(max=LOG_RATIO_LIMIT)
    return torch.expm1(log_ratio) - log_ratio


KL_ESTIMATORS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = MappingProxyType({"k1": k1, "k2": k2, "k3": k3})
"""By the name that ``KL.estimator`` gives."""


def reward_penalty(
    sampling_logprobs: Floats, reference_logprobs: Floats, *, estimator: str, coefficient: float
) -> Floats:
    """What each token of one sequence [T] costs in the reward: ``β KL_t``, under the policy that drew the token.

    ``advantages.credit`` takes it off (Stiennon et al., 2020, arXiv:2009.01325).
    """
    divergence = KL_ESTIMATORS[estimator](torch.tensor(sampling_logprobs), torch.tensor(reference_logprobs))
    penalty: Floats = (coefficient * divergence).numpy()
    return penalty
