"""Attention while sampling, the prompt's part and a row's own part apart (Athiwaratkun et al., 2024, arXiv:2403.08845).

All rows of a prompt read its keys in one product, from the one place where they are; each row reads its own beside.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from fettle.engine.local.cache import Shelf, Slabs, Structure
from fettle.engine.local.parts import Part, merged, part


class Segment(NamedTuple):
    """What a pass over several prompts runs of one: its tokens from ``past`` on; those before are on the shelf."""

    prompt: int
    shelf: Shelf
    place: int
    """On the shelf."""
    past: int

    @property
    def new(self) -> int:
        """Tokens to be run."""
        return self.shelf.lengths[self.place] - self.past


class PromptAttention:
    """Satisfies ``Attention`` for a pass over segments end to end: each is causal, and is put on its shelf."""

    def __init__(self, segments: Sequence[Segment], like: Structure) -> None:
        self._like = like
        self._segments = segments
        self._masks = [_after(s.past, s.new, like.device) if s.past else None for s in segments]

    def __call__(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, *, scale: float, window: int | None
    ) -> Tensor:
        """See ``Attention``."""
        lengths, dtype = [segment.new for segment in self._segments], self._like.dtype
        states = [torch.split(whole.to(dtype), lengths) for whole in (query, key, value)]
        grouped = query.shape[1] != key.shape[1]
        found = []
        for segment, mask, own, new_keys, new_values in zip(self._segments, self._masks, *states, strict=True):
            shelf, place, past, length = segment.shelf, segment.place, segment.past, segment.past + segment.new
            keys, values = shelf.keys[layer, place, :length], shelf.values[layer, place, :length]
            keys[past:], values[past:] = new_keys, new_values
            q, k, v = (tensor.transpose(0, 1)[None] for tensor in (own, keys, values))
            out = scaled_dot_product_attention(
                q, k, v, attn_mask=mask, is_causal=mask is None, scale=scale, enable_gqa=grouped
            )
            found.append(out[0].transpose(0, 1))
        return torch.cat(found)


@dataclass(frozen=True, slots=True)
class Seating:
    """Which rows read which shelf. All its prompts have as many seats; empty ones read for no one."""

    read: list[tuple[Shelf, slice]]
    """The shelves that are read, and where in ``seated`` their seats are."""
    seated: Tensor  # [seats, heads]: the row and key head of each seat and key head, in the order that a shelf is read
    seat: Tensor  # [B]: of each row, among all seats

    @classmethod
    def of(cls, prompts: NDArray[np.int64], shelves: list[Shelf], like: Structure) -> "Seating":
        """For a batch whose row b reads ``prompts[b]`` [B], which is on a shelf."""
        rows, counts = np.arange(len(prompts)), np.bincount(prompts, minlength=1 + max(max(s.prompts) for s in shelves))
        order = prompts.argsort(kind="stable")
        rank = np.empty_like(rows)  # among the rows of its prompt
        rank[order] = rows - (counts.cumsum() - counts)[prompts[order]]
        first, shapes, seats = np.empty_like(counts), [], 0  # of each prompt its first seat
        for shelf in shelves:
            most = int(counts[shelf.prompts].max())
            first[shelf.prompts] = seats + most * np.arange(len(shelf.prompts))
            shapes.append((len(shelf.prompts), most))
            seats += len(shelf.prompts) * most
        seat = first[prompts] + rank
        row_of = np.zeros(seats, dtype=np.int64)
        row_of[seat] = rows
        starts = np.cumsum([0, *(count * most for count, most in shapes)])
        heads = np.arange(like.heads)[:, None]
        tables = [
            (row_of[start : start + count * most].reshape(count, 1, most) * like.heads + heads).ravel()
            for start, (count, most) in zip(starts.tolist(), shapes, strict=False)
        ]
        bounds = (starts * like.heads).tolist()
        read = [(shelf, slice(*bounds[i : i + 2])) for i, shelf in enumerate(shelves) if shapes[i][1]]
        seated = torch.from_numpy(np.concatenate(tables)).to(like.device)
        return cls(read, seated, torch.from_numpy(seat).to(like.device))


class StepAttention:
    """Satisfies ``Attention`` for one new token of each of B rows, each of which has drawn ``lengths`` [B] before."""

    def __init__(self, seating: Seating, slabs: Slabs, lengths: NDArray[np.int64], like: Structure) -> None:
        self._like = like
        self._seating = seating
        rows, width = len(lengths), int(lengths.max()) + 1
        columns = torch.from_numpy(lengths).to(like.device)
        self._places = torch.arange(rows, device=like.device) * slabs.columns + columns
        self._flat = [slab.flatten(3).flatten(1, 2).unbind() for slab in (slabs.keys, slabs.values)]
        self._own = [slab[:, :rows, :width].transpose(2, 3).unbind() for slab in (slabs.keys, slabs.values)]
        self._mask = None
        if int(lengths.min()) + 1 < width:
            beyond = torch.arange(width, device=like.device) > columns[:, None]
            mask = torch.zeros(beyond.shape, dtype=like.dtype, device=like.device)
            self._mask = mask.masked_fill_(beyond, float("-inf"))[:, None, None]

    def __call__(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, *, scale: float, window: int | None
    ) -> Tensor:
        """See ``Attention``. Heads that share a key head are read together, as further queries: [.., heads, size]."""
        rows, heads, size = query.shape
        dtype, key_heads = self._like.dtype, self._like.heads
        for flat, states in zip(self._flat, (key, value), strict=True):
            flat[layer].index_copy_(0, self._places, states.to(dtype).reshape(rows, -1))
        folded = query.to(dtype).reshape(rows, key_heads, -1, size)
        keys, values = (own[layer] for own in self._own)
        own = part(folded, keys, values, scale=scale, mask=self._mask)
        out = merged(self._read(layer, folded, scale), own)  # [B, repeats, key heads, size]
        return out.transpose(1, 2).reshape(rows, heads, -1)

    def _read(self, layer: int, folded: Tensor, scale: float) -> Part:
        """What each row reads in its prompt."""
        seating, (rows, heads, repeats, size) = self._seating, folded.shape
        seated = folded.reshape(rows * heads, repeats * size).index_select(0, seating.seated)
        found = []
        for shelf, seats in seating.read:
            query = seated[seats].view(len(shelf.prompts), heads, -1, size)
            found.append(part(query, *shelf.views[layer], scale=scale, mask=shelf.mask))
        out, logsumexp = (
            torch.cat([tensor.reshape(-1, repeats, *tensor.shape[2:]) for tensor in tensors])
            for tensors in zip(*found, strict=True)
        )
        return Part(out.index_select(0, seating.seat), logsumexp.index_select(0, seating.seat))


def _after(past: int, new: int, device: torch.device) -> Tensor:
    """[new, past + new] of bool: which tokens the new ones see."""
    return torch.ones(new, past + new, dtype=torch.bool, device=device).tril(past)
