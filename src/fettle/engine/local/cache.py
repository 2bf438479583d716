"""The cache: keys and values of prompts on shelves, those of what rows have drawn in slabs, all in reused memory."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from fettle.engine.local.attention import UnsuitedError
from fettle.engine.local.forward import Forward
from fettle.engine.local.kept import Stretch

HEADROOM = 64
"""Columns that slabs are widened by at least: widening copies them."""
CALL = 128
"""Columns of padding that cost about as much as one more call of the attention kernel."""


@dataclass(frozen=True, slots=True)
class Structure:
    """What one token leaves in the cache."""

    layers: int
    heads: int
    """Key heads."""
    key_size: int
    value_size: int
    window: int | None
    """The shortest that a layer has; None where every layer sees all that came before."""
    dtype: torch.dtype
    device: torch.device

    @property
    def bytes_per_token(self) -> int:
        """Of keys and values in all layers."""
        return self.layers * self.heads * (self.key_size + self.value_size) * self.dtype.itemsize


def structure(forward: Forward, device: torch.device) -> Structure:
    """Seen by running one token. Values come in the type that the model computes in, autocast's if that is on.

    Raises:
        UnsuitedError: the layers are not alike.
    """
    seen: list[tuple[int, int, int, torch.dtype]] = []
    windows: list[int] = []
    order: list[int] = []

    def recorder(layer: int, query: Tensor, key: Tensor, value: Tensor, *, scale: float, window: int | None) -> Tensor:
        order.append(layer)
        seen.append((*key.shape[1:], value.shape[2], value.dtype))
        windows.extend([] if window is None else [window])
        return query.new_zeros(*query.shape[:2], value.shape[2])

    zero = torch.zeros(1, dtype=torch.long, device=device)
    forward.logits(zero, zero, recorder)
    if order != list(range(len(order))) or len(set(seen)) != 1:
        raise UnsuitedError("its layers keep keys and values of unlike shapes")
    heads, key_size, value_size, dtype = seen[0]
    return Structure(len(seen), heads, key_size, value_size, min(windows, default=None), dtype, device)


@dataclass(slots=True)
class Pool:
    """Memory that is handed on: fresh memory costs a small model more than the arithmetic on it.

    What it gives holds finite numbers, because what is masked must be finite nevertheless.
    """

    most_bytes: int
    """Of memory that nobody uses."""
    _spare: list[Tensor] = field(default_factory=list)

    def taken(self, shape: Sequence[int], like: Structure) -> Tensor:
        """A tensor of this shape, which ``give`` takes back."""
        size = int(np.prod(shape))
        fitting = [buffer for buffer in self._spare if buffer.numel() >= size > 0 and buffer.dtype == like.dtype]
        if not fitting:
            return torch.zeros(size, dtype=like.dtype, device=like.device).view(*shape)
        best = min(fitting, key=Tensor.numel)
        self._spare = [buffer for buffer in self._spare if buffer is not best]
        return best[:size].view(*shape)

    def give(self, tensor: Tensor) -> None:
        """Its memory may be used again."""
        if tensor.numel():
            self._spare.append(tensor.new_empty(0).set_(tensor.untyped_storage()))
        while sum(buffer.nbytes for buffer in self._spare) > self.most_bytes:
            self._spare.pop(0)

    def clear(self) -> None:
        """Let it all go."""
        self._spare = []


class Slabs:
    """What rows have drawn: row b fills the first columns of slot b, however long the others are."""

    def __init__(self, like: Structure, pool: Pool, *, limit: int) -> None:
        self._like = like
        self._pool = pool
        self._limit = limit
        self.keys = self._taken(0, 0, like.key_size)  # [layers, slots, columns, heads, size]
        self.values = self._taken(0, 0, like.value_size)

    @property
    def columns(self) -> int:
        """Tokens that a slot holds."""
        return self.keys.shape[2]

    def fit(self, slots: int, columns: int) -> None:
        """Make room for so many rows, the longest of which has so many tokens."""
        if slots <= self.keys.shape[1] and columns <= self.columns:
            return
        if columns > self.columns:
            columns = min(max(columns + HEADROOM - 1, self.columns * 3 // 2), self._limit)
        for name, size in (("keys", self._like.key_size), ("values", self._like.value_size)):
            old: Tensor = getattr(self, name)
            wider = self._taken(max(slots, old.shape[1]), max(columns, old.shape[2]), size)
            wider[:, : old.shape[1], : old.shape[2]] = old
            setattr(self, name, wider)
            self._pool.give(old)

    def move(self, sources: Tensor, targets: Tensor, width: int) -> None:
        """Copy the first ``width`` columns of some slots over those of others."""
        for slab in (self.keys, self.values):
            slab[:, targets, :width] = slab[:, sources, :width]

    def stretch(self, slot: int, columns: int, before: Stretch | None) -> Stretch:
        """A copy of what the first columns of a slot hold."""
        return Stretch(before, self.keys[:, slot, :columns].clone(), self.values[:, slot, :columns].clone())

    def release(self) -> None:
        """The rows have all been drawn."""
        self._pool.give(self.keys)
        self._pool.give(self.values)

    def _taken(self, slots: int, columns: int, size: int) -> Tensor:
        return self._pool.taken((self._like.layers, slots, columns, self._like.heads, size), self._like)


class Shelf:
    """P prompts of like length; each fills the first of L columns."""

    def __init__(self, prompts: list[int], lengths: list[int], like: Structure, pool: Pool) -> None:
        self.prompts = prompts
        self.lengths = lengths
        self._like = like
        self._pool = pool
        shape = (like.layers, len(prompts), max(lengths), like.heads)
        self.keys = pool.taken((*shape, like.key_size), like)  # [layers, P, L, heads, size]
        self.values = pool.taken((*shape, like.value_size), like)
        self.views = list(zip(*(slab.transpose(2, 3).unbind() for slab in (self.keys, self.values)), strict=True))
        """Keys and values of each layer, [P, heads, L, size]."""
        width = torch.tensor(lengths)[:, None, None, None]
        beyond = torch.arange(max(lengths)) >= width  # [P, 1, 1, L]
        mask = torch.zeros(beyond.shape, dtype=like.dtype).masked_fill_(beyond, float("-inf"))
        self.mask = mask.to(like.device) if bool(beyond.any()) else None

    @property
    def tokens(self) -> int:
        """Columns that it takes, padding included."""
        return len(self.prompts) * max(self.lengths)

    def put(self, place: int, stretch: Stretch) -> int:
        """Start the prompt at ``place`` with what was computed before; how many tokens that is."""
        start = 0
        for piece in stretch.line:
            end = start + piece.keys.shape[1]
            self.keys[:, place, start:end], self.values[:, place, start:end] = piece.keys, piece.values
            start = end
        return start

    def stretch(self, place: int, before: Stretch | None) -> Stretch:
        """A copy of what follows ``before`` in the prompt at ``place``."""
        own = slice(0 if before is None else before.end, self.lengths[place])
        return Stretch(before, self.keys[:, place, own].clone(), self.values[:, place, own].clone())

    def only(self, places: list[int]) -> "Shelf":
        """A smaller one, of the prompts at these places; this one's memory is given back."""
        chosen = Shelf([self.prompts[i] for i in places], [self.lengths[i] for i in places], self._like, self._pool)
        for slab, old in ((chosen.keys, self.keys), (chosen.values, self.values)):
            torch.index_select(old[:, :, : slab.shape[2]], 1, torch.tensor(places, device=old.device), out=slab)
        self.release()
        return chosen

    def release(self) -> None:
        """Nobody reads its prompts any more."""
        self._pool.give(self.keys)
        self._pool.give(self.values)


def shelved(lengths: Sequence[int]) -> list[list[int]]:
    """Prompts, by place, that share a shelf: of like length, so that padding costs less than calls saved."""
    groups: list[list[int]] = []
    padding = 0
    for place in sorted(range(len(lengths)), key=lambda place: lengths[place]):
        if groups:
            padding += len(groups[-1]) * (lengths[place] - lengths[groups[-1][-1]])
        if not groups or padding > CALL:
            groups.append([])
            padding = 0
        groups[-1].append(place)
    return groups
