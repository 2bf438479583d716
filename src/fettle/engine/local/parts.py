"""Attention in parts: over one set of keys at a time, each part with the weight that it has in the whole.

A query's attention over several sets of keys is the mean of its attention over each, weighted by the sums of the
exponentials: exact, with no mask and no copy that would bring the sets together. A part's weight is carried as the
logarithm of its sum (logsumexp).
"""

from typing import NamedTuple

import torch
from torch import Tensor

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default


class Part(NamedTuple):
    """What B x Q queries of H heads read in one set of keys."""

    out: Tensor  # [B, Q, H, size]
    logsumexp: Tensor  # [B, Q, H]


def part(query: Tensor, key: Tensor, value: Tensor, *, scale: float, mask: Tensor | None = None) -> Part:
    """Attention of ``query`` [B, H, Q, size] over ``key`` and ``value`` [B, H, L, size].

    ``mask`` [B, 1, 1, L], added to the products, is -inf where there is nothing; every query has something to read.
    """
    if query.device.type == "cpu" and key.shape[-1] == value.shape[-1]:
        out, logsumexp = _flash(query, key, value, 0.0, False, attn_mask=mask, scale=scale)
    else:
        out, logsumexp = plain(query, key, value, scale=scale, mask=mask)
    return Part(out.transpose(1, 2), logsumexp.transpose(1, 2))


def plain(
    query: Tensor, key: Tensor, value: Tensor, *, scale: float, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The same in simple operations, for any device: out [B, H, Q, size] and logsumexp [B, H, Q]."""
    scores = (query @ key.transpose(-1, -2)).float() * scale  # [B, H, Q, L]
    if mask is not None:
        scores = scores + mask
    logsumexp = scores.logsumexp(-1)
    return (scores - logsumexp[..., None]).exp().to(value.dtype) @ value, logsumexp


def merged(one: Part, other: Part) -> Tensor:
    """Attention over both sets of keys: ``out`` of both together."""
    weight = (one.logsumexp - other.logsumexp).sigmoid_()[..., None]
    return torch.lerp(other.out, one.out, weight.to(one.out.dtype))
