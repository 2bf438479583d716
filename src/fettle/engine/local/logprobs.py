"""Log-probabilities of given tokens from hidden states, without ever holding a batch's logits.

The head is applied in chunks; the backward pass recomputes each chunk's logits and takes one gradient per
log-probability and per entropy, so it serves every loss.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK_ROWS = 512
"""Tokens whose logits are held at a time: enough for a matrix product at full speed."""

CHUNK_ELEMENTS = 3 << 24
"""Logits held at a time, whatever the vocabulary: 192 MiB in float32."""


def token_logprobs(
    hidden: Float[Tensor, "N H"],
    weight: Float[Tensor, "V H"],
    bias: Float[Tensor, " V"] | None,
    targets: Int[Tensor, " N"],
    temperature: Float[Tensor, " N"],
) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
    """``log softmax(h Wᵀ / τ)[target]`` and the entropy of that softmax, both differentiable.

    Extra memory is two chunks of logits, of ``CHUNK_ROWS`` or ``CHUNK_ELEMENTS``, whichever is less; not N by V.
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
        tempered = bool((temperature != 1).any())
        # ∂log p_y/∂h, where nothing but h is learned: then the backward pass need not make the logits again.
        slope = torch.empty_like(hidden) if ctx.needs_input_grad[:3] == (True, False, False) else None
        made, held = _buffers(hidden, weight)
        weights_held = torch.empty_like(held)
        for rows in chunks(len(hidden), len(weight)):
            logits = _logits(hidden[rows], weight, bias, temperature[rows] if tempered else None, made, held)  # [n, V]
            most = logits.amax(-1, keepdim=True)
            above = logits.sub_(most)
            target = above.gather(1, targets[rows, None])[:, 0]
            # With e = exp(x - max x) and s = Σ e: log p_y = y - log s, and H = log s - Σ p x.
            weights = torch.exp(above, out=weights_held[: len(above)])
            total = weights.sum(-1)
            log_total = total.log()
            logprobs[rows] = target - log_total
            normalizer[rows] = log_total + most[:, 0]
            error = weights.div_(-total[:, None]).scatter_add_(1, targets[rows, None], torch.ones_like(most))  # 1_y - p
            if slope is not None:
                torch.mm(error if made is held else made[: len(error)].copy_(error), weight, out=slope[rows])
            entropy[rows] = log_total - target + error.mul_(above).sum(-1)
        ctx.set_materialize_grads(False)
        ctx.tempered, ctx.slope = tempered, slope
        ctx.save_for_backward(hidden, weight, bias, targets, temperature, normalizer, entropy)
        return logprobs, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_logprobs: Tensor | None, d_entropy: Tensor | None) -> tuple[Tensor | None, ...]:
        """``∂log p_y/∂x = 1_y - p`` and ``∂H/∂x = -p (log p + H)``, for logits x already divided by τ."""
        hidden, weight, bias, targets, temperature, normalizer, entropy = ctx.saved_tensors
        if ctx.slope is not None and d_entropy is None and d_logprobs is not None:
            return (d_logprobs / temperature).to(hidden.dtype)[:, None] * ctx.slope, None, None, None, None
        d_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        # Summed over chunks in float32, whatever they are made in.
        d_weight = _at_least_float32(torch.zeros_like(weight)) if ctx.needs_input_grad[1] else None
        d_bias = torch.zeros_like(bias) if ctx.needs_input_grad[2] else None
        d_target = (torch.zeros_like(entropy) if d_logprobs is None else d_logprobs) / temperature
        made, held = _buffers(hidden, weight)
        scale_held = None if d_entropy is None else torch.empty_like(held)
        for rows in chunks(len(hidden), len(weight)):
            logits = _logits(hidden[rows], weight, bias, temperature[rows] if ctx.tempered else None, made, held)
            log_p = logits.sub_(normalizer[rows, None])
            scale = d_target[rows, None]
            if d_entropy is None or scale_held is None:
                d_logits = log_p.exp_().mul_(-scale)
            else:
                of_entropy = (d_entropy[rows] / temperature[rows])[:, None]
                scales = torch.add(log_p, entropy[rows, None], out=scale_held[: len(log_p)]).mul_(of_entropy)
                d_logits = log_p.exp_().mul_(scales.add_(scale)).neg_()
            d_logits.scatter_add_(1, targets[rows, None], scale)
            if made is not held:
                d_logits = made[: len(d_logits)].copy_(d_logits)
            if d_hidden is not None:
                torch.mm(d_logits, weight, out=d_hidden[rows])
            if d_weight is not None and d_weight.dtype == d_logits.dtype:
                d_weight.addmm_(d_logits.t(), hidden[rows])
            elif d_weight is not None:
                d_weight += d_logits.t() @ hidden[rows]
            if d_bias is not None:
                d_bias += d_logits.sum(0)
        return d_hidden, None if d_weight is None else d_weight.to(weight.dtype), d_bias, None, None


def _buffers(hidden: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """For one chunk of logits as the product makes them and in float32 at least; one and the same where they may be.

    Made once for all chunks: memory that is new to a process costs more to touch than the arithmetic done in it.
    """
    rows = min(len(hidden), _chunk(len(weight)))
    made = hidden.new_empty(rows, len(weight))
    return made, _at_least_float32(made)


def _logits(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, temperature: Tensor | None, made: Tensor, held: Tensor
) -> Tensor:
    product = torch.mm(hidden, weight.t(), out=made[: len(hidden)])
    if bias is not None:
        product += bias
    logits = held[: len(hidden)] if made is held else held[: len(hidden)].copy_(product)
    return logits if temperature is None else logits.div_(temperature[:, None])


def _at_least_float32(logits: Tensor) -> Tensor:
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits


def chunks(rows: int, vocabulary: int) -> list[slice]:
    """Stretches of ``rows`` whose logits may be held at a time."""
    size = _chunk(vocabulary)
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]


def _chunk(vocabulary: int) -> int:
    return max(1, min(CHUNK_ROWS, CHUNK_ELEMENTS // vocabulary))
