"""What adapters add to the products of a lean forward: many adapters in one pass, each for its own tokens.

The adapters of one fused product are stacked: the A's of its parts side by side, their B's in blocks, the scale in
them. One adapter so costs two small products wherever it adds something, and K adapters two batched ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fettle.engine.local.forward import Carried
from fettle.engine.local.lora import Adapter

MOST_PADDING = 2.0
"""Rows of a batched product to rows of use, above which adapters are gone through one by one."""


@dataclass(frozen=True, slots=True)
class Product:
    """``x Wᵀ + b``, of one linear layer or of several that share their input, stacked."""

    number: int
    """Its place among the products of the forward."""
    weight: Tensor  # [out, in]
    bias: Tensor | None  # [out]
    paths: tuple[str, ...]
    """The linear layers."""
    widths: tuple[int, ...]
    """How many of the outputs are each layer's."""


@dataclass(frozen=True, slots=True)
class Update:
    """What K adapters add to a product: ``x down up``."""

    down: Tensor  # [K, in, R]
    up: Tensor  # [K, R, out]


@dataclass(frozen=True, slots=True)
class Batch:
    """The tokens of some adjacent adapters, as many slots for each."""

    adapters: slice
    tokens: Tensor  # [k · m], the token in each slot; a slot too many has the first
    rows: Tensor  # [n], the tokens
    slots: Tensor | None  # [n], where each is; None where all slots are of use, in their order


@dataclass(frozen=True, slots=True)
class Beside:
    """The adapters of one pass, and whose each token is."""

    updates: Sequence[Update | None]
    """By a product's number."""
    owner: Tensor | None
    """[N], which of the adapters; below zero for none. None where all tokens are the first one's."""
    batches: Sequence[Batch]

    def add(self, product: Product, x: Tensor, out: Tensor) -> None:
        """Add to ``out`` [N, out], in place, what the adapters make of ``x`` [N, in]."""
        update = self.updates[product.number]
        if update is None:
            return
        if self.owner is None:
            _add_product(out, x @ update.down[0], update.up[0])
            return
        for batch in self.batches:
            down, up = update.down[batch.adapters], update.up[batch.adapters]
            inputs = x.index_select(0, batch.tokens).view(len(down), -1, x.shape[1])
            made = torch.bmm(torch.bmm(inputs, down), up).flatten(0, 1)
            if batch.slots is not None:
                made = made.index_select(0, batch.slots)
            out.index_add_(0, batch.rows, made.to(out.dtype))

    def of(self, wanted: Tensor) -> "Beside":
        """The same, of the tokens at ``wanted`` [n] only."""
        if self.owner is None:
            return self
        owner = self.owner[wanted]
        return Beside(self.updates, owner, _batches(owner, _count(self.updates)))


class Adapters:
    """The adapters that one forward was last given, stacked for its products."""

    def __init__(self, products: Sequence[Product]) -> None:
        self._products = products
        self._stacked: tuple[Adapter, ...] = ()
        self._updates: list[Update | None] = []

    def beside(self, carried: Sequence[Carried], n: int, device: torch.device) -> Beside | None:
        """What ``carried`` adds in a pass of ``n`` tokens."""
        if not carried:
            return None
        adapters = tuple(each.adapter for each in carried)
        if list(map(id, adapters)) != list(map(id, self._stacked)):
            self._updates = [stacked(product, adapters) for product in self._products]
            self._stacked = adapters
        if len(carried) == 1 and carried[0].rows is None:
            return Beside(self._updates, None, ())
        owner = torch.full((n,), -1, device=device)
        for i, each in enumerate(carried):
            owner[slice(None) if each.rows is None else each.rows] = i
        return Beside(self._updates, owner, _batches(owner, len(adapters)))


def stacked(product: Product, adapters: Sequence[Adapter]) -> Update | None:
    """What the adapters add to one product; None if none of them has a layer of it."""
    if not any(path in adapter.layers for adapter in adapters for path in product.paths):
        return None
    longest = len(product.paths) * max(adapter.settings.rank for adapter in adapters)
    outputs, inputs = product.weight.shape
    down = product.weight.new_zeros(len(adapters), longest, inputs)
    up = product.weight.new_zeros(len(adapters), outputs, longest)
    for k, adapter in enumerate(adapters):
        rank, scale, above = adapter.settings.rank, adapter.settings.alpha / adapter.settings.rank, 0
        for i, (path, width) in enumerate(zip(product.paths, product.widths, strict=True)):
            if path in adapter.layers:
                a, b = adapter.layers[path]
                down[k, i * rank : (i + 1) * rank] = a
                up[k, above : above + width, i * rank : (i + 1) * rank] = b * scale
            above += width
    return Update(down.transpose(1, 2), up.transpose(1, 2))


def _batches(owner: Tensor, adapters: int) -> list[Batch]:
    """One batch of all adapters where they have about as many tokens, else one for each."""
    order = owner.argsort(stable=True)
    none, *counts = torch.bincount(owner + 1, minlength=adapters + 1).tolist()
    rows, longest = order[none:], max(counts)
    if longest * adapters > MOST_PADDING * len(rows):
        parts = torch.split(rows, counts)
        return [Batch(slice(k, k + 1), part, part, None) for k, part in enumerate(parts) if len(part)]
    if longest * adapters == len(rows):
        return [Batch(slice(None), rows, rows, None)] if longest else []
    starts = torch.tensor([0, *counts[:-1]], device=owner.device).cumsum(0)  # [K]
    ranks = owner[rows]
    slots = ranks * longest + torch.arange(len(rows), device=owner.device) - starts[ranks]
    tokens = rows.new_zeros(adapters * longest).index_copy(0, slots, rows)
    return [Batch(slice(None), tokens, rows, slots)]


def _count(updates: Sequence[Update | None]) -> int:
    return next((len(update.down) for update in updates if update is not None), 1)


def _add_product(out: Tensor, x: Tensor, matrix: Tensor) -> None:
    if out.dtype == x.dtype:
        out.addmm_(x, matrix)
    else:
        out.add_(x @ matrix)
