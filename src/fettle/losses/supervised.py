"""Supervised losses. Axes: B sequences, T tokens."""

from jaxtyping import Float
from torch import Tensor


def causal_lm(logprobs: Float[Tensor, "B T"]) -> tuple[Float[Tensor, "B T"], dict[str, Tensor]]:
    """Negative log-likelihood, in nats: ``L = -log π``."""
    nll = -logprobs
    return nll, {"nll": nll.detach()}
