"""The cache of rows that come and go: one slab of keys and one of values a layer, written in place.

A slab is [slots, heads, columns, head size]; a row fills the first columns of its slot, however long the others are.
Slots 0 to B - 1 are the batch. Slabs grow with the longest row, not with what rows may one day need.
"""

from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

HEADROOM = 64
"""Columns that slabs are widened by beyond those needed at once."""


@dataclass(frozen=True, slots=True)
class Prompts:
    """A forward pass over prompts, each of which starts some slots."""

    slots: list[slice]
    """For each row of the pass."""
    lengths: list[int]
    """For each row of the pass, padding excluded."""


@dataclass(frozen=True, slots=True)
class NextTokens:
    """A forward pass over one token for each of slots 0 to B - 1."""

    rows: Tensor  # [B], 0 to B - 1
    columns: Tensor  # [B], where each token goes
    width: int
    """Columns that hold something, the new token included."""


Prefix = list[tuple[Tensor, Tensor]]
"""Keys and values of one prompt, [heads, length, head size] for each layer."""


@dataclass(slots=True)
class _Plan:
    """What the layers share: the size of the slabs, and what the forward pass at hand writes."""

    slots: int
    dtype: torch.dtype
    columns: int = 0
    writing: Prompts | NextTokens = field(default_factory=lambda: Prompts([], []))


class SlabLayer(CacheLayerMixin):  # type: ignore[misc]
    """The slabs of one layer, made at its first forward pass."""

    def __init__(self, plan: _Plan) -> None:
        super().__init__()
        self._plan = plan

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Zeros, because what is masked must be finite nevertheless."""
        self.keys, self.values = (self._slab(states) for states in (key_states, value_states))
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Write the new states [b, heads, t, head size], and return what they may attend to."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        match self._plan.writing:
            case Prompts(slots, lengths):
                for slab, states in ((self.keys, key_states), (self.values, value_states)):
                    for row, (started, length) in enumerate(zip(slots, lengths, strict=True)):
                        slab[started, :, :length] = states[row, :, :length]
                return key_states, value_states
            case NextTokens(rows, columns, width):
                for slab, states in ((self.keys, key_states), (self.values, value_states)):
                    slab[rows, :, columns] = states[:, :, 0].to(slab.dtype)
                return self.keys[: len(rows), :, :width], self.values[: len(rows), :, :width]

    def get_seq_length(self) -> int:
        """Columns filled before this forward pass."""
        return self._plan.writing.width - 1 if isinstance(self._plan.writing, NextTokens) else 0

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of what is attended to."""
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        """No limit."""
        return -1

    def grow(self) -> None:
        """Widen to the plan's columns."""
        self.keys, self.values = (self._widened(slab) for slab in (self.keys, self.values))

    def _slab(self, states: Tensor) -> Tensor:
        plan, (_, heads, _, size) = self._plan, states.shape
        return torch.zeros(plan.slots, heads, plan.columns, size, dtype=plan.dtype, device=states.device)

    def _widened(self, slab: Tensor) -> Tensor:
        wider = slab.new_zeros(*slab.shape[:2], self._plan.columns, slab.shape[3])
        wider[:, :, : slab.shape[2]] = slab
        return wider


class SlabCache(Cache):  # type: ignore[misc]
    """Satisfies transformers' ``Cache`` for models whose every layer attends to all that came before."""

    def __init__(self, *, slots: int, dtype: torch.dtype) -> None:
        self._plan = _Plan(slots, dtype)
        super().__init__(layer_class_to_replicate=partial(SlabLayer, self._plan))

    def suits(self, slots: int, *, at_most: int, dtype: torch.dtype) -> bool:
        """Whether it may be used again where ``slots`` are needed and ``at_most`` are allowed."""
        return slots <= self._plan.slots <= at_most and dtype == self._plan.dtype

    @property
    def nbytes(self) -> int:
        """Memory of all slabs."""
        return sum(int(layer.keys.nbytes + layer.values.nbytes) for layer in self.layers)

    def write(self, writing: Prompts | NextTokens, *, columns: int, capacity: int) -> "SlabCache":
        """Announce the next forward pass, after which the longest row fills ``columns``, of ``capacity`` at most."""
        self._plan.writing = writing
        if columns > self._plan.columns:
            self._plan.columns = min(columns + HEADROOM, capacity)
            for layer in self.layers:
                layer.grow()
        return self

    def move(self, source: int, target: int, width: int) -> None:
        """Copy the first ``width`` columns of one slot over those of another."""
        for layer in self.layers:
            for slab in (layer.keys, layer.values):
                slab[target, :, :width] = slab[source, :, :width]

    def prefix(self, slot: int, length: int) -> Prefix:
        """A copy of what the first ``length`` columns of a slot hold."""
        return [(layer.keys[slot, :, :length].clone(), layer.values[slot, :, :length].clone()) for layer in self.layers]

    def paste(self, prefix: Prefix, slots: slice) -> None:
        """Start ``slots`` with a prompt that was computed before."""
        for layer, states in zip(self.layers, prefix, strict=True):
            for slab, state in zip((layer.keys, layer.values), states, strict=True):
                slab[slots, :, : state.shape[1]] = state


def computing_dtype(device: torch.device, dtype: torch.dtype) -> torch.dtype:
    """What attention computes in: autocast's choice where the caller turned that on."""
    return torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else dtype
