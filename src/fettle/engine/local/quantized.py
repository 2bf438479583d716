"""Frozen weights in 8 or 4 bits, for adapters to stand beside (QLoRA: Dettmers et al., 2023, arXiv:2305.14314)."""

import functools
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Quantization = Literal["int8", "nf4"]

BLOCK = 64
"""Weights of one row that share a scale in nf4."""

NF4_OFFSET = 0.9677083
"""Where the paper's code takes the outermost quantile of the normal distribution."""


@functools.cache
def nf4_levels() -> Tensor:
    """The 16 levels of the 4-bit normal float: quantiles of a normal distribution, an exact 0 among them, within ±1."""
    half = torch.tensor(0.5, dtype=torch.float64)
    above = torch.special.ndtri(torch.linspace(NF4_OFFSET, half.item(), 9, dtype=torch.float64)[:-1])
    below = -torch.special.ndtri(torch.linspace(NF4_OFFSET, half.item(), 8, dtype=torch.float64)[:-1])
    levels = torch.cat([below, torch.zeros(1, dtype=torch.float64), above]).sort().values
    return (levels / levels.abs().max()).float()


class Quantized(nn.Module):
    """A linear layer whose frozen weight [out, in] is stored in few bits and made anew for each product.

    ``int8``: one scale a row; ``nf4``: one scale for each 64 weights of a row, two weights a byte. The backward pass
    makes the weight again rather than keep it.
    """

    codes: Tensor
    scales: Tensor
    up: Tensor | None
    down: Tensor | None

    def __init__(self, linear: nn.Linear, kind: Quantization) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.kind = kind
        self.bias = linear.bias
        codes, scales = _int8(linear.weight) if kind == "int8" else _nf4(linear.weight)
        self.register_buffer("codes", codes)
        self.register_buffer("scales", scales)
        self.register_buffer("up", None)
        self.register_buffer("down", None)

    def add(self, up: Tensor, down: Tensor) -> None:
        """Add ``up [out, r] · down [r, in]`` to what the codes stand for: an earlier adapter, kept whole."""
        ups, downs = ([] if each is None else [each] for each in (self.up, self.down))
        self.up = torch.cat([*ups, up.to(self.scales.device)], 1)
        self.down = torch.cat([*downs, down.to(self.scales.device)], 0)

    def weight(self, dtype: torch.dtype) -> Tensor:
        """[out, in]: what the codes stand for, and what was added."""
        stored = self._stored()
        return (stored if self.up is None or self.down is None else stored + self.up @ self.down).to(dtype)

    def _stored(self) -> Tensor:
        if self.kind == "int8":
            return self.codes.float() * self.scales
        pairs = torch.stack([self.codes >> 4, self.codes & 15], -1).flatten(1).long()  # [out, blocks · 64]
        levels = nf4_levels().to(pairs.device)[pairs]
        values = levels.reshape(len(levels), -1, BLOCK) * self.scales[..., None]
        return values.flatten(1)[:, : self.in_features]

    def forward(self, x: Tensor) -> Tensor:
        """``x Wᵀ + b``."""
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        product: Tensor = _Product.apply(x.to(dtype), self)  # type: ignore[no-untyped-call]
        return product if self.bias is None else product + self.bias.to(dtype)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: Quantized) -> Tensor:
        ctx.layer = layer
        return x @ layer.weight(x.dtype).t()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient @ ctx.layer.weight(gradient.dtype), None


def quantize(model: nn.Module, kind: Quantization) -> None:
    """Put every linear layer but the output head into few bits, in place."""
    for parent, name, layer in _layers(model):
        setattr(parent, name, Quantized(layer, kind))


@torch.no_grad()
def rounded(model: nn.Module, kind: Quantization) -> None:
    """Give every such layer, in full precision, the weights that few bits would leave it with."""
    for _, _, layer in _layers(model):
        layer.weight.copy_(Quantized(layer, kind).weight(layer.weight.dtype))


def _layers(model: nn.Module) -> list[tuple[nn.Module, str, nn.Linear]]:
    head = getattr(model, "get_output_embeddings", lambda: None)()
    return [
        (parent, name, layer)
        for parent in model.modules()
        for name, layer in parent.named_children()
        if isinstance(layer, nn.Linear) and layer is not head
    ]


def _int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    scales = weight.detach().float().abs().amax(1, keepdim=True).clamp(min=1e-12) / 127
    return (weight.detach().float() / scales).round().to(torch.int8), scales


def _nf4(weight: Tensor) -> tuple[Tensor, Tensor]:
    rows = nn.functional.pad(weight.detach().float(), (0, -weight.shape[1] % BLOCK)).reshape(len(weight), -1, BLOCK)
    scales = rows.abs().amax(-1).clamp(min=1e-12)  # [out, blocks]
    levels = nf4_levels().to(rows.device)
    middles = (levels[1:] + levels[:-1]) / 2
    codes = torch.bucketize((rows / scales[..., None]).flatten(1), middles).to(torch.uint8)
    return codes[:, 0::2] << 4 | codes[:, 1::2], scales
