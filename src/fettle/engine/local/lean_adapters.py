"""What adapters add to the products of a lean forward: many adapters in one pass, each for its own tokens.

In a fused product, one adapter's A's lie side by side and its B's in blocks, with the scale in them: two small
products, whichever of the fused layers it adapts. The tokens of an adapter are brought together, unless they are.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fettle.engine.local.forward import Carried
from fettle.engine.local.lora import Adapter


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
    """What one adapter adds to a product: ``x down up``."""

    down: Tensor  # [in, R]
    up: Tensor  # [R, out]


Updates = Sequence[Update | None]
"""One adapter's, by the number of the product."""


@dataclass(frozen=True, slots=True)
class Beside:
    """The adapters of one pass, and whose each token is."""

    adapters: tuple[Updates, ...]
    owner: Tensor | None
    """[N], which of the adapters; below zero for none. None where all tokens are the first one's."""
    order: Tensor | None
    """[N], the tokens, brought together by adapter; None where they lie so."""
    runs: tuple[tuple[int, int], ...]
    """In that order: which adapter, and of how many tokens."""

    def add(self, product: Product, x: Tensor, out: Tensor) -> None:
        """Add to ``out`` [N, out], in place, what the adapters make of ``x`` [N, in]."""
        if self.order is None:
            self._add_runs(product, x, out)
            return
        ordered = out.index_select(0, self.order)
        self._add_runs(product, x.index_select(0, self.order), ordered)
        out.index_copy_(0, self.order, ordered)

    def of(self, wanted: Tensor) -> "Beside":
        """The same, of the tokens at ``wanted`` [n] only."""
        if self.owner is None:
            return replace(self, runs=((0, len(wanted)),))
        return owned(self.adapters, self.owner[wanted])

    def _add_runs(self, product: Product, x: Tensor, out: Tensor) -> None:
        counts = [count for _, count in self.runs]
        parts = zip(self.runs, x.split_with_sizes(counts), out.split_with_sizes(counts), strict=True)
        for (adapter, _), inputs, outputs in parts:
            update = None if adapter < 0 else self.adapters[adapter][product.number]
            if update is None:
                continue
            if outputs.dtype == inputs.dtype:
                outputs.addmm_(inputs @ update.down, update.up)
            else:
                outputs.add_(inputs @ update.down @ update.up)


class Adapters:
    """The adapters that one forward has been given, as they were then, made ready for its products."""

    def __init__(self, products: Sequence[Product]) -> None:
        self._products = products
        self._known: dict[int, tuple[Adapter, Updates]] = {}  # the adapter is kept so that its id stays its own

    def beside(self, carried: Sequence[Carried], n: int, device: torch.device) -> Beside | None:
        """What ``carried`` adds in a pass of ``n`` tokens."""
        if not carried:
            return None
        updates = tuple(self.updates(each.adapter) for each in carried)
        if len(carried) == 1 and carried[0].rows is None:
            return Beside(updates, None, None, ((0, n),))
        owner = torch.full((n,), -1, device=device)
        for i, each in enumerate(carried):
            owner[slice(None) if each.rows is None else each.rows] = i
        return owned(updates, owner)

    def updates(self, adapter: Adapter) -> Updates:
        """One adapter's, by the number of the product."""
        if id(adapter) not in self._known:
            self._known[id(adapter)] = adapter, [_update(product, adapter) for product in self._products]
        return self._known[id(adapter)][1]


def owned(adapters: tuple[Updates, ...], owner: Tensor) -> Beside:
    """Adapters beside tokens whose ``owner`` [N] is one of them, or below zero."""
    order = None
    found, counts = torch.unique_consecutive(owner, return_counts=True)
    if len(found) > len(adapters) + 1:
        ordered, order = owner.sort(stable=True)
        found, counts = torch.unique_consecutive(ordered, return_counts=True)
    return Beside(adapters, owner, order, tuple(zip(found.tolist(), counts.tolist(), strict=True)))


def _update(product: Product, adapter: Adapter) -> Update | None:
    downs = [adapter.layers[path][0].detach() for path in product.paths if path in adapter.layers]
    if not downs:
        return None
    rank, scale = adapter.settings.rank, adapter.settings.alpha / adapter.settings.rank
    up = product.weight.new_zeros(rank * len(downs), len(product.weight))
    for rows, columns, path in _blocks(product, adapter, rank):
        up[rows, columns] = (adapter.layers[path][1].detach() * scale).t()
    return Update(torch.cat(downs).to(product.weight.dtype).t(), up)


def _blocks(product: Product, adapter: Adapter, rank: int) -> Iterator[tuple[slice, slice, str]]:
    row = column = 0
    for path, width in zip(product.paths, product.widths, strict=True):
        if path in adapter.layers:
            yield slice(row, row + rank), slice(column, column + width), path
            row += rank
        column += width
