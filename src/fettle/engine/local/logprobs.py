"""Log-probabilities of given tokens from hidden states, without ever holding a batch's logits.

The head is applied in chunks; the backward pass recomputes each chunk's logits and takes one gradient per
log-probability and per entropy, so it serves every loss.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK_ELEMENTS = 1 << 23
"""Logits held at a time, whatever the vocabulary: 32 MiB in float32."""


def token_logprobs(
    hidden: Float[Tensor, "N H"],
    weight: Float[Tensor, "V H"],
    bias: Float[Tensor, " V"] | None,
    targets: Int[Tensor, " N"],
    temperature: Float[Tensor, " N"],
) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
    """``log softmax(h Wᵀ / τ)[target]`` and the entropy of that softmax, both differentiable.

    Extra memory is a few chunks of ``CHUNK_ELEMENTS`` logits, not N by V.
    """
    # Under autocast a product is made in its dtype; said outright, the backward pass makes the same one.
    kind = hidden.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
    cast = (hidden.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype))
    outputs: tuple[Tensor, Tensor] = _ChunkedLogprobs.apply(*cast, targets, temperature)  # type: ignore[no-untyped-call]
    return outputs


def logprobs_of_logits(
    logits: Float[Tensor, "N V"], targets: Int[Tensor, " N"], temperature: Float[Tensor, " N"]
) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
    """The same from logits that exist already, for models whose head is not one matrix."""
    log_softmax = torch.log_softmax(_at_least_float32(logits) / temperature[:, None], -1)
    entropy = -(log_softmax.exp() * log_softmax).sum(-1)
    return log_softmax.gather(1, targets[:, None])[:, 0], entropy


class _ChunkedLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, temperature: Tensor
    ) -> tuple[Tensor, Tensor]:
        dtype = torch.float32 if hidden.dtype in (torch.bfloat16, torch.float16) else hidden.dtype
        logprobs, entropy, normalizer = (hidden.new_empty(len(hidden), dtype=dtype) for _ in range(3))
        for rows in _chunks(len(hidden), len(weight)):
            logits = _logits(hidden[rows], weight, bias, temperature[rows])  # [n, V]
            z = torch.logsumexp(logits, -1)
            normalizer[rows] = z
            logprobs[rows] = logits.gather(1, targets[rows, None])[:, 0] - z
            # H = z - Σ p x, with p = exp(x - z).
            probabilities = torch.exp(logits - z[:, None])
            entropy[rows] = z - torch.linalg.vecdot(probabilities, logits)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(hidden, weight, bias, targets, temperature, normalizer, entropy)
        return logprobs, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_logprobs: Tensor | None, d_entropy: Tensor | None) -> tuple[Tensor | None, ...]:
        """``∂log p_y/∂x = 1_y - p`` and ``∂H/∂x = -p (log p + H)``, for logits x already divided by τ."""
        hidden, weight, bias, targets, temperature, normalizer, entropy = ctx.saved_tensors
        d_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        # Summed over chunks in float32, whatever they are made in.
        d_weight = _at_least_float32(torch.zeros_like(weight)) if ctx.needs_input_grad[1] else None
        d_bias = torch.zeros_like(bias) if ctx.needs_input_grad[2] else None
        if d_logprobs is None:
            d_logprobs = torch.zeros_like(entropy)
        for rows in _chunks(len(hidden), len(weight)):
            d_logits = _logits(hidden[rows], weight, bias, temperature[rows]).sub_(normalizer[rows, None])
            if d_entropy is not None:
                log_p = d_logits
                scale = d_logprobs[rows, None] + d_entropy[rows, None] * (log_p + entropy[rows, None])
                d_logits = log_p.exp().mul_(scale).neg_()
            else:
                d_logits.exp_().mul_(-d_logprobs[rows, None])
            d_logits.scatter_add_(1, targets[rows, None], d_logprobs[rows, None])
            d_logits = d_logits.div_(temperature[rows, None]).to(hidden.dtype)
            if d_hidden is not None:
                torch.mm(d_logits, weight, out=d_hidden[rows])
            if d_weight is not None:
                d_weight += d_logits.t() @ hidden[rows]
            if d_bias is not None:
                d_bias += d_logits.sum(0)
        return d_hidden, None if d_weight is None else d_weight.to(weight.dtype), d_bias, None, None


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, temperature: Tensor) -> Tensor:
    logits = _at_least_float32(torch.nn.functional.linear(hidden, weight, bias))
    return logits.div_(temperature[:, None])


def _at_least_float32(logits: Tensor) -> Tensor:
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits


def _chunks(rows: int, vocabulary: int) -> list[slice]:
    size = max(1, CHUNK_ELEMENTS // vocabulary)
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]
