"""The loss of a critic. Axes: B sequences, T tokens."""

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
    """Squared error to the returns R, held near the values V_old that credit was given with (PPO's clip, c)::

        L = 1/2 max((V - R)², (V_old + clip(V - V_old, -c, c) - R)²)

    The greater of the two is taken token by token, before any mean. It takes the gradient from a value that has
    already moved by c towards its return. ``value_clip_fraction`` is 1 at such tokens; ``value_loss`` is L.
    """
    error = (values - returns).square()
    if clip is None:
        loss = error / 2
        held = torch.zeros_like(error)
    else:
        moved = values - old_values
        clipped_error = (old_values + moved.clamp(-clip, clip) - returns).square()
        loss = torch.maximum(error, clipped_error) / 2
        held = ((moved.abs() > clip) & (clipped_error > error)).to(error.dtype)
    return loss, {"value_loss": loss.detach(), "value_clip_fraction": held.detach()}
