"""Log-probabilities of many tokens after one state, whose logits are made once for all of them."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from fettle.engine.local.logprobs import chunks

LogitsOf = Callable[[slice], Tensor]
"""The logits [n, V] that follow a stretch of the states."""


def asked_logprobs(
    logits_of: LogitsOf,
    vocabulary: int,
    owner: Int[Tensor, " N"],
    targets: Int[Tensor, " N"],
    temperature: Float[Tensor, " 1"],
) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
    """``log softmax(x / τ)[target]`` and the entropy of that softmax after state ``owner`` of each target.

    Both are differentiable. Logits are held for a chunk of states at a time; the backward pass makes them again.
    """
    order = owner.argsort(stable=True)
    stretches = chunks(int(owner.max()) + 1 if len(owner) else 0, vocabulary)
    starts = torch.tensor([stretch.start for stretch in stretches], dtype=owner.dtype, device=owner.device)
    places = [*torch.searchsorted(owner[order], starts).tolist(), len(owner)]
    said = [targets.new_zeros((2, 0), dtype=temperature.dtype)]
    for stretch, first, last in zip(stretches, places, places[1:], strict=False):
        mine = order[first:last]
        given = (logits_of, stretch, owner[mine] - stretch.start, targets[mine], temperature)
        said.append(checkpoint(_said, *given, use_reentrant=False, preserve_rng_state=False))
    logprobs, entropy = torch.cat(said, dim=1).index_select(1, order.argsort())
    return logprobs, entropy


def _said(logits_of: LogitsOf, stretch: slice, owner: Tensor, targets: Tensor, temperature: Tensor) -> Tensor:
    """[2, n]: the log-probability of each target, and the entropy before it."""
    logits = logits_of(stretch)
    kept = logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
    log_softmax = (kept / temperature).log_softmax(-1)
    entropy = -(log_softmax.exp() * log_softmax).sum(-1)
    return torch.stack([log_softmax[owner, targets], entropy[owner]])
