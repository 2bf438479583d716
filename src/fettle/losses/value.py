"""The critic's regression. Axes: B sequences, T tokens."""

import torch
from jaxtyping import Float
from torch import Tensor


def value(
    values: Float[Tensor, "B T"],
    *,
    returns: Float[Tensor, "B T"],
    old_values: Float[Tensor, "B T"],
    clip: float | None = 0.2,
) -> tuple[Float[Tensor, "B T"], dict[str, Tensor]]:
    """``L = max((V - R)², (V_old + clip(V - V_old, ±c) - R)²) / 2``, elementwise."""
    error = (values - returns).square()
    if clip is None:
        held = error
    else:
        held = (old_values + (values - old_values).clamp(-clip, clip) - returns).square()
    loss = torch.maximum(error, held) / 2
    return loss, {"value_loss": loss.detach(), "value_clip_fraction": (held > error).to(loss.dtype)}
