"""The parts of a lean forward: rotations, and layers that write a residual stream in place."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from fettle.engine.local.attention import Attention
from fettle.engine.local.lean_adapters import Beside, Product

Norm = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class RmsNorm:
    """By the root mean square over the last axis, times ``weight``: in float32, then of type ``dtype``.

    torch's own goes by way of float64 on a CPU, which takes half as long again.
    """

    weight: Tensor  # [..., size]
    epsilon: Tensor
    dtype: torch.dtype

    def __call__(self, x: Tensor) -> Tensor:
        """Of ``x`` [..., size]."""
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=self.epsilon.dtype)
        scale = torch.addcmul(self.epsilon, length, length, value=1 / x.shape[-1]).rsqrt_()
        return (x * scale).mul_(self.weight).to(self.dtype)


@dataclass(frozen=True, slots=True)
class Rotation:
    """Cosines and sines of the angles by which the tokens of one pass are rotated."""

    cos: Tensor  # [N, 1, size]
    sin: tuple[Tensor, Tensor]  # [N, 1, size / 2] each

    def __call__(self, x: Tensor) -> Tensor:
        """``x`` [N, heads, size] rotated: the first half of a head is paired with its second."""
        rotated = x * self.cos
        (first, second), (low, high) = x.chunk(2, -1), rotated.chunk(2, -1)
        low.addcmul_(second, self.sin[0], value=-1)
        high.addcmul_(first, self.sin[1])
        return rotated


class Rope:
    """Tables of the model's own rotary module, made when a position first needs them."""

    def __init__(self, module: nn.Module, like: Tensor) -> None:
        self._module = module
        self._like = like
        self._tables: dict[str | None, tuple[Tensor, Tensor]] = {}
        self._length = 0

    def at(self, positions: Tensor, kinds: Collection[str | None]) -> dict[str | None, Rotation]:
        """The rotation of each kind of layer at ``positions`` [N]; None is the one kind of most architectures."""
        rotations = {}
        for kind, (cos, sin) in self.tables(int(positions.max()) + 1, kinds).items():
            first, second = sin.index_select(0, positions)[:, None].chunk(2, -1)
            rotations[kind] = Rotation(cos.index_select(0, positions)[:, None], (first, second))
        return rotations

    def tables(self, length: int, kinds: Collection[str | None]) -> Mapping[str | None, tuple[Tensor, Tensor]]:
        """Cosines and sines [at least ``length``, size] of every position, for each kind of layer."""
        if length > self._length:
            self._length = 1 << length.bit_length()
            every = torch.arange(self._length, device=self._like.device)[None]
            for kind in set(kinds):
                named = () if kind is None else (kind,)
                cos, sin = self._module(self._like, every, *named)  # [1, length, size]
                self._tables[kind] = cos[0], sin[0]
        return self._tables


@dataclass(frozen=True, slots=True)
class LeanLayer:
    """One layer: its weights, and its arithmetic on a residual stream ``x`` [N, hidden]."""

    number: int
    query_key_value: Product
    output: Product
    widening: Product
    narrowing: Product
    before_attention: Norm
    after_attention: Norm | None
    before_mlp: Norm
    after_mlp: Norm | None
    head_norm: Norm | None
    """Of queries and keys [N, heads + key heads, size]."""
    activation: Callable[[Tensor], Tensor]
    gated: bool
    heads: int
    key_heads: int
    size: int
    scale: float
    window: int | None

    def attended(self, x: Tensor, rotation: Rotation | None, attention: Attention, beside: Beside | None) -> Tensor:
        """[N, heads · size]: what the attention gives, before its output product."""
        made = applied(self.query_key_value, self.before_attention(x), beside)
        rotated = (self.heads + self.key_heads) * self.size
        both = made[:, :rotated].view(len(x), -1, self.size)
        value = made[:, rotated:].view(len(x), -1, self.size)
        if self.head_norm is not None:
            both = self.head_norm(both)
        if rotation is not None:
            both = rotation(both)
        query, key = both.to(made.dtype).split_with_sizes((self.heads, self.key_heads), 1)
        return attention(self.number, query, key, value, scale=self.scale, window=self.window).flatten(1)

    def finish(self, x: Tensor, attended: Tensor, beside: Beside | None) -> None:
        """The rest of the layer, into ``x`` in place: the attention's output product and the MLP."""
        _add(self.output, attended, x, self.after_attention, beside)
        wide = applied(self.widening, self.before_mlp(x), beside)
        if self.gated:
            gate, up = wide.chunk(2, 1)
            wide = self.activation(gate).mul_(up)
        else:
            wide = self.activation(wide)
        _add(self.narrowing, wide, x, self.after_mlp, beside)


def applied(product: Product, x: Tensor, beside: Beside | None) -> Tensor:
    """A product [N, out], and what adapters add to it."""
    x = x.to(product.weight.dtype)
    out = functional.linear(x, product.weight, product.bias)
    if beside is not None:
        beside.add(product, x, out)
    return out


def _add(product: Product, x: Tensor, residual: Tensor, norm: Norm | None, beside: Beside | None) -> None:
    """Add to ``residual``, in place, the product of ``x``, normed where a norm is given."""
    if norm is not None or residual.dtype != product.weight.dtype:
        made = applied(product, x, beside)
        residual.add_(made if norm is None else norm(made))
        return
    x = x.to(product.weight.dtype)
    residual.addmm_(x, product.weight.t())
    if product.bias is not None:
        residual.add_(product.bias)
    if beside is not None:
        beside.add(product, x, residual)
