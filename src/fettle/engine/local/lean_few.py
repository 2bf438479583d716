"""One token of each of a few rows: products in torch, and all between them in NumPy over the same memory.

At this size calls cost more than arithmetic, and a call of NumPy costs a quarter of one of torch's. An adapter is
merged into a copy of the weights, and each row has its prompt's keys and values to itself: one attention reads them.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fettle.engine.local.lean import LeanForward
from fettle.engine.local.lean_adapters import Product, Updates
from fettle.engine.local.lean_layers import LeanLayer, RmsNorm

AT_ONCE, PARTS, LANES = 1 << 18, 4, 16
"""NumPy's product of a few rows takes half as long as torch's. But beyond so many multiplications OpenBLAS wakes
threads that nobody asked for: so it is given a share of the columns at once, and what needs more shares is torch's.
"""

Array = NDArray[np.float32]


class Twin(NamedTuple):
    """The same numbers, for both libraries."""

    array: Array
    tensor: Tensor


class FewNorm:
    """A norm by the root mean square over the last axis."""

    def __init__(self, norm: RmsNorm) -> None:
        self._size = norm.weight.shape[-1]
        self._epsilon = np.float32(self._size * float(norm.epsilon))
        self._weight: Array = norm.weight.numpy() * np.float32(math.sqrt(self._size))

    def __call__(self, x: Array, out: Array) -> None:
        """Of ``x`` [..., size], into ``out``."""
        length = np.vecdot(x, x)
        length += self._epsilon
        np.sqrt(length, out=length)
        np.divide(x, length[..., None], out=out)
        np.multiply(out, self._weight, out=out)


class FewProduct:
    """``x Wᵀ + b``, with an adapter's update in the weight."""

    def __init__(self, product: Product, updates: Updates | None) -> None:
        update = None if updates is None else updates[product.number]
        weight = product.weight.t()
        self._weight = weight.contiguous() if update is None else torch.addmm(weight, update.down, update.up)
        self._bias: Array | None = None if product.bias is None else product.bias.numpy()
        self._parts: dict[int, list[tuple[slice, Array]]] = {}  # by the number of rows

    def into(self, x: Twin, out: Twin) -> None:
        """The product of ``x`` [B, in]."""
        if len(x.array) not in self._parts:
            self._parts[len(x.array)] = self._parted(len(x.array))
        for columns, weight in self._parts[len(x.array)]:
            np.matmul(x.array, weight, out=out.array[:, columns])
        if not self._parts[len(x.array)]:
            torch.mm(x.tensor, self._weight, out=out.tensor)
        if self._bias is not None:
            np.add(out.array, self._bias, out=out.array)

    def _parted(self, rows: int) -> list[tuple[slice, Array]]:
        """Columns of the weight that are multiplied at once; none where they would be too many parts."""
        fan_in, width = self._weight.shape
        parts = -(-rows * fan_in * width // AT_ONCE)
        if parts > PARTS:
            return []
        step = -(-width // (parts * LANES)) * LANES
        return [
            (slice(start, start + step), self._weight.numpy()[:, start : start + step])
            for start in range(0, width, step)
        ]


@dataclass(frozen=True, slots=True)
class FewLayer:
    """What a layer does to a few rows."""

    query_key_value: FewProduct
    output: FewProduct
    widening: FewProduct
    narrowing: FewProduct
    before_attention: FewNorm
    before_mlp: FewNorm
    head_norm: FewNorm | None
    activation: Callable[[Tensor], Tensor]
    scale: np.float32


class Rows:
    """The numbers of one step of B rows, in memory that every step uses again."""

    def __init__(self, count: int, layer: LeanLayer, head: Product) -> None:
        heads, key_heads, size = layer.heads, layer.key_heads, layer.size
        hidden, rotated, half = head.weight.shape[1], (heads + key_heads) * size, size // 2
        self.x: Array = np.empty((count, hidden), dtype=np.float32)
        self.normed = _twin(count, hidden)
        self.made = _twin(count, rotated + key_heads * size)
        self.both = self.made.array[:, :rotated].reshape(count, heads + key_heads, size)
        self.value = self.made.array[:, rotated:].reshape(count, key_heads, size)
        self.turned = np.empty_like(self.both)
        self.swapped = np.empty_like(self.both)
        self.halves = [
            (self.both[..., half:], self.swapped[..., :half]),
            (self.both[..., :half], self.swapped[..., half:]),
        ]
        """Of a head, and where each stands once they are swapped."""
        self.query = self.turned[:, :heads].reshape(count, key_heads, -1, size)
        self.key = self.turned[:, heads:]
        self.attended = _twin(count, heads * size)
        self.read = self.attended.array.reshape(self.query.shape)
        self.wide = _twin(count, len(layer.widening.weight))
        self.gate, self.up = self.wide.tensor.chunk(2, 1)
        self.narrow = _twin(*self.gate.shape)
        self.logits = _twin(count, len(head.weight))


class FewWeights:
    """A model's, and an adapter's with them, as they were when this was made."""

    def __init__(self, forward: LeanForward, updates: Updates | None) -> None:
        self.forward = forward
        self.layers = [_few(layer, updates) for layer in forward.layers]
        self.head = FewProduct(forward.head, updates)
        self.final_norm = FewNorm(_rms(forward.final_norm))
        self.embedding: Array = forward.embedding.numpy()

    def rotary(self, length: int) -> tuple[Array, Array]:
        """Cosines and sines [at least ``length``, size]; the sines of the first half are of the angle turned back."""
        cos, sin = (table.numpy() for table in self.forward.rotary(length))
        half = sin.shape[1] // 2
        return cos, np.concatenate([-sin[:, :half], sin[:, half:]], axis=1)


class FewForward:
    """The steps of a call's rows, which have their newest token in one column and stand right-aligned before it."""

    def __init__(self, weights: FewWeights, firsts: NDArray[np.int64], columns: int) -> None:
        """``firsts`` [B]: the column of each row's first token, of ``columns`` that there are."""
        self._weights = weights
        self._rows = self._scratch(len(firsts))
        self._cos, self._sin = weights.rotary(columns)
        some = weights.forward.layers[0]
        shape = (len(weights.layers), len(firsts), some.key_heads, columns, some.size)
        self.keys: Array = np.zeros(shape, dtype=np.float32)
        self.values: Array = np.zeros(shape, dtype=np.float32)
        self._firsts = firsts
        self._columns = columns
        self._from = 0
        self._mask: Array | None = None
        self._states: list[tuple[Array, Array]] = []  # of each layer, the rows that there are
        self._see()

    def logits(self, tokens: NDArray[np.int64], column: int) -> Tensor:
        """Those [B, V] that follow ``tokens`` [B], which are put into ``column``; the next call overwrites them."""
        rows, weights = self._rows, self._weights
        np.take(weights.embedding, tokens, axis=0, out=rows.x)
        positions = column - self._firsts
        cos, sin = self._cos[positions][:, None], self._sin[positions][:, None]  # [B, 1, size]
        turn = cos, *np.split(sin, 2, axis=-1)
        with np.errstate(all="ignore"):  # weights that have diverged are refused where a token is drawn
            for number, layer in enumerate(weights.layers):
                self._attend(number, layer, turn, column)
                layer.output.into(rows.attended, rows.normed)
                np.add(rows.x, rows.normed.array, out=rows.x)
                layer.before_mlp(rows.x, rows.normed.array)
                layer.widening.into(rows.normed, rows.wide)
                torch.mul(layer.activation(rows.gate), rows.up, out=rows.narrow.tensor)
                layer.narrowing.into(rows.narrow, rows.normed)
                np.add(rows.x, rows.normed.array, out=rows.x)
            weights.final_norm(rows.x, rows.normed.array)
            weights.head.into(rows.normed, rows.logits)
        return rows.logits.tensor

    def keep(self, order: NDArray[np.int64], column: int) -> None:
        """Go on with the rows at these places, in this order; ``column`` is the first that is empty."""
        moved = np.flatnonzero(order != np.arange(len(order)))
        if len(moved):
            for states in (self.keys, self.values):
                states[:, moved, :, :column] = states[:, order[moved], :, :column]
        self._firsts = self._firsts[order]
        if len(order):
            self._rows = self._scratch(len(order))
            self._see()

    def _attend(self, number: int, layer: FewLayer, turn: Sequence[Array], column: int) -> None:
        rows, seen = self._rows, slice(self._from, column + 1)
        layer.before_attention(rows.x, rows.normed.array)
        layer.query_key_value.into(rows.normed, rows.made)
        both, turned = rows.both, rows.turned
        if layer.head_norm is not None:
            layer.head_norm(both, both)
        np.multiply(both, turn[0], out=turned)
        for (half, other), sin in zip(rows.halves, turn[1:], strict=True):
            np.multiply(half, sin, out=other)
        np.add(turned, rows.swapped, out=turned)
        keys, values = self._states[number]
        keys[:, :, column], values[:, :, column] = rows.key, rows.value
        scores = rows.query @ keys[:, :, seen].swapaxes(-1, -2)  # [B, key heads, repeats, columns]
        np.multiply(scores, layer.scale, out=scores)
        if self._mask is not None:
            np.add(scores, self._mask[..., seen], out=scores)
        np.subtract(scores, np.maximum.reduce(scores, -1, keepdims=True), out=scores)
        np.exp(scores, out=scores)
        np.divide(scores @ values[:, :, seen], np.add.reduce(scores, -1, keepdims=True), out=rows.read)

    def _scratch(self, count: int) -> Rows:
        forward = self._weights.forward
        return Rows(count, forward.layers[0], forward.head)

    def _see(self) -> None:
        """Which columns hold something of some row, and which of these nothing of another."""
        rows = len(self._firsts)
        self._states = [(keys[:rows], values[:rows]) for keys, values in zip(self.keys, self.values, strict=True)]
        self._from = int(self._firsts.min(initial=self._columns))
        self._mask = None
        if (self._firsts > self._from).any():
            empty = np.arange(self._columns) < self._firsts[:, None, None, None]
            self._mask = np.where(empty, np.float32("-inf"), np.float32(0))


def suits(forward: LeanForward) -> bool:
    """Whether its layers are of the common kind that is written out here: rotations, norms by the root mean square."""
    return forward.rotates_alike and all(
        layer.gated
        and layer.after_attention is None
        and layer.after_mlp is None
        and layer.query_key_value.weight.dtype == torch.float32
        and layer.query_key_value.weight.device.type == "cpu"
        and all(isinstance(norm, RmsNorm) and norm.dtype == torch.float32 for norm in _norms(layer))
        for layer in forward.layers
    )


def _norms(layer: LeanLayer) -> Sequence[object]:
    own = (layer.before_attention, layer.before_mlp)
    return own if layer.head_norm is None else (*own, layer.head_norm)


def _few(layer: LeanLayer, updates: Updates | None) -> FewLayer:
    return FewLayer(
        query_key_value=FewProduct(layer.query_key_value, updates),
        output=FewProduct(layer.output, updates),
        widening=FewProduct(layer.widening, updates),
        narrowing=FewProduct(layer.narrowing, updates),
        before_attention=FewNorm(_rms(layer.before_attention)),
        before_mlp=FewNorm(_rms(layer.before_mlp)),
        head_norm=None if layer.head_norm is None else FewNorm(_rms(layer.head_norm)),
        activation=layer.activation,
        scale=np.float32(layer.scale),
    )


def _rms(norm: Callable[[Tensor], Tensor]) -> RmsNorm:
    if not isinstance(norm, RmsNorm):
        raise TypeError(f"a few rows are normed by RmsNorm, not by {norm!r}")
    return norm


def _twin(*shape: int) -> Twin:
    array = np.empty(shape, dtype=np.float32)
    return Twin(array, torch.from_numpy(array))
