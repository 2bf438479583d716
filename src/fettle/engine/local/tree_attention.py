"""Attention within trees: every part of a sequence sees itself causally, and a member's own part all that is shared.

On the CPU neither needs a mask. A token's attention over two sets of keys is the mean of its attentions over each,
weighted by their normalizers; and each set's gradient is what its own backward pass gives for the merged output and
normalizer, as in ring attention (Liu et al., 2023, arXiv:2310.01889).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import scaled_dot_product_attention

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward

LIKE = 16
"""Parts whose lengths differ by no more tokens than this, or by an eighth, are padded to one length."""


@dataclass(frozen=True, slots=True)
class Branches:
    """One tree as it stands in the row: what its members share, then each one's own part."""

    start: int
    shared: int
    own: tuple[int, ...]

    @property
    def fork(self) -> int:
        """Where the own parts begin."""
        return self.start + self.shared

    @property
    def end(self) -> int:
        """Where the tree ends."""
        return self.fork + sum(self.own)

    @property
    def parts(self) -> list[tuple[int, int]]:
        """Start and length of what is shared and of each own part, where there is any."""
        lengths = np.array([self.shared, *self.own])
        starts = self.start + np.cumsum(lengths) - lengths
        return [(int(a), int(n)) for a, n in zip(starts, lengths, strict=True) if n]


@dataclass(frozen=True, slots=True)
class _Bucket:
    """Parts in one padded call, and the first of their cells."""

    start: int
    parts: int
    length: int

    def of(self, cells: Tensor) -> Tensor:
        """[parts, heads, length, ...] from values by cell [C, heads, ...]."""
        held = cells[self.start : self.start + self.parts * self.length]
        return held.view(self.parts, self.length, *held.shape[1:]).transpose(1, 2)


@dataclass(frozen=True, slots=True)
class _Plan:
    """What every layer's attention over one row goes by."""

    buckets: list[_Bucket]
    cells: Tensor  # [N]: the cell of each token
    size: int
    """Cells in all, padding included."""
    crossings: list[tuple[slice, slice]]
    """Tokens of own parts, and those that they all see besides themselves."""

    def padded(self, values: Tensor, fill: float = 0.0) -> Tensor:
        """[C, ...] from [N, ...]."""
        return values.new_full((self.size, *values.shape[1:]), fill).index_copy_(0, self.cells, values)

    def packed(self, parts: Sequence[Tensor]) -> Tensor:
        """[N, heads, ...] from each bucket's [parts, heads, length, ...]."""
        cells = [part.transpose(1, 2).flatten(0, 1) for part in parts]
        return (cells[0] if len(cells) == 1 else torch.cat(cells)).index_select(0, self.cells)


class TreeAttention:
    """Satisfies ``Attention`` for the trees of one row."""

    def __init__(self, trees: Sequence[Branches], device: torch.device) -> None:
        self._trees = trees
        self._device = device
        self._longest = max(tree.shared + max(tree.own) for tree in trees)
        self._plan = _plan(trees, device)
        self._masks: dict[int, list[Tensor]] = {}

    def __call__(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, *, scale: float, window: int | None
    ) -> Tensor:
        """See ``Attention``. A window that hides nothing is none."""
        seen = self._longest if window is None else min(window, self._longest)
        if seen < self._longest or self._device.type != "cpu" or value.shape[-1] != query.shape[-1]:
            return self._masked(query, key, value, scale, seen)
        if torch.is_autocast_enabled("cpu"):
            # In bfloat16 this kernel is slower, and rounds more.
            query, key, value = (x.float() for x in (query, key, value))
        out: Tensor = _Split.apply(query, key, value, self._plan, scale)  # type: ignore[no-untyped-call]
        return out

    def _masked(self, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int) -> Tensor:
        """The same by one call a tree, with a mask of what each of its tokens sees."""
        if window not in self._masks:
            self._masks[window] = [_mask(tree, window, self._device) for tree in self._trees]
        groups = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
        found = []
        for tree, mask in zip(self._trees, self._masks[window], strict=True):
            q, k, v = (_row(x[tree.start : tree.end]) for x in (query, key, value))
            found.append(scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)[0].transpose(0, 1))
        return torch.cat(found)


class _Split(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, plan: _Plan, scale: float) -> Tensor:
        q, k, v = plan.padded(query), plan.padded(key), plan.padded(value)
        own = [_flash(b.of(q), b.of(k), b.of(v), 0.0, True, scale=scale) for b in plan.buckets]
        out, normalizer = plan.packed([o for o, _ in own]), plan.packed([z for _, z in own])  # [N, H, D], [N, H]
        for tokens, shared in plan.crossings:
            o, z = _flash(_row(query[tokens]), _row(key[shared]), _row(value[shared]), 0.0, False, scale=scale)
            o, z = o[0].transpose(0, 1), z[0].transpose(0, 1)
            # exp(z) / (exp(z) + exp(z')) of the one, and the rest of the other.
            share = torch.sigmoid(z - normalizer[tokens])[..., None]
            out[tokens] = torch.lerp(out[tokens].to(z.dtype), o.to(z.dtype), share).to(out.dtype)
            normalizer[tokens] = torch.logaddexp(normalizer[tokens], z)
        ctx.save_for_backward(query, key, value, out, normalizer)
        ctx.plan, ctx.scale = plan, scale
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, out, normalizer = ctx.saved_tensors
        plan: _Plan = ctx.plan
        g, q, k, v, o = (plan.padded(x) for x in (gradient, query, key, value, out))
        z = plan.padded(normalizer, torch.inf)  # probabilities of padding come to 0
        own = [
            _flash_backward(*(b.of(x) for x in (g, q, k, v, o, z)), 0.0, True, scale=ctx.scale) for b in plan.buckets
        ]
        d_query, d_key, d_value = (plan.packed([parts[i] for parts in own]) for i in range(3))
        for tokens, shared in plan.crossings:
            seen = (gradient[tokens], query[tokens], key[shared], value[shared], out[tokens], normalizer[tokens])
            dq, dk, dv = _flash_backward(*(_row(x) for x in seen), 0.0, False, scale=ctx.scale)
            d_query[tokens] += dq[0].transpose(0, 1)
            d_key[shared] += dk[0].transpose(0, 1)
            d_value[shared] += dv[0].transpose(0, 1)
        return d_query, d_key, d_value, None, None


def _plan(trees: Sequence[Branches], device: torch.device) -> _Plan:
    parts = sorted((part for tree in trees for part in tree.parts), key=lambda part: (-part[1], part[0]))
    cells = np.zeros(trees[-1].end, np.int64)
    buckets: list[_Bucket] = []
    held: list[tuple[int, int]] = []
    size = 0
    for start, length in parts:
        longest = held[0][1] if held else length
        if longest - length > max(LIKE, longest // 8):
            buckets.append(_Bucket(size, len(held), longest))
            size, held, longest = size + len(held) * longest, [], length
        first = size + len(held) * longest
        cells[start : start + length] = np.arange(first, first + length)
        held.append((start, length))
    buckets.append(_Bucket(size, len(held), held[0][1]))
    size += len(held) * held[0][1]
    crossings = [
        (slice(tree.fork, tree.end), slice(tree.start, tree.fork))
        for tree in trees
        if tree.shared and tree.end > tree.fork
    ]
    return _Plan(buckets, torch.from_numpy(cells).to(device), size, crossings)


def _mask(tree: Branches, window: int, device: torch.device) -> Tensor:
    """[n, n]: whether the token of a row sees that of a column."""
    part = np.repeat(np.arange(len(tree.own) + 1), [tree.shared, *tree.own])
    position = np.concatenate([np.arange(tree.shared), *(tree.shared + np.arange(n) for n in tree.own)])
    back = position[:, None] - position[None]
    sees = ((part[None] == part[:, None]) | (part[None] == 0)) & (back >= 0) & (back < window)
    return torch.from_numpy(sees).to(device)


def _row(values: Tensor) -> Tensor:
    """[1, heads, n, ...] from [n, heads, ...]."""
    return values.transpose(0, 1)[None]
