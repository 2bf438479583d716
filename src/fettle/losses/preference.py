"""Preferences. Axes: N pairs, B sequences."""

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid


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
    variant: str = "sigmoid",
    label_smoothing: float = 0.0,
    reference_free: bool = False,
    length_normalized: bool = False,
    margin: float = 0.0,
) -> tuple[Float[Tensor, " N"], dict[str, Tensor]]:
    """To be written."""
    h = beta * (chosen_logprobs - chosen_reference_logprobs - rejected_logprobs + rejected_reference_logprobs)
    return -logsigmoid(h - margin - pair_margin), {"reward_margin": h.detach(), "preference_accuracy": (h > 0).float()}


simpo = orpo = kto = dpo
