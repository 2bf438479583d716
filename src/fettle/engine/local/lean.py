"""Hand-written forwards without gradients, over the very weights of transformers' modules: few and large operations.

They are equal to transformers' own within rounding. Each row of ``FAMILIES`` describes one; there is one arithmetic.
"""

import functools
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PretrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from fettle.engine.local.attention import Attention
from fettle.engine.local.forward import Carried, Forward
from fettle.engine.local.fusing import fused
from fettle.engine.local.lean_adapters import Adapters, Product, Updates
from fettle.engine.local.lean_families import ACTIVATIONS, FAMILIES, Family, lean_family, window
from fettle.engine.local.lean_layers import LeanLayer, Norm, RmsNorm, Rope, Rotation, applied
from fettle.engine.local.lora import Adapter
from fettle.engine.local.model import LanguageModel

__all__ = ["LeanForward", "lean_family", "lean_forward"]


def lean_forward(model: LanguageModel, tensors: Mapping[str, Tensor] | None) -> Forward | None:
    """The model's arithmetic with ``tensors`` in the place of its own by parameter name; None if it is not known.

    Cheap to make, and made for one sampling call: weights that do not lie side by side are copied, and float32 weights
    of a model that computes in bfloat16 are rounded, once.
    """
    family = FAMILIES.get(lean_family(model.module.config))
    if family is None or type(model.module).__name__ != family.causal_lm or not model.head_is_one_matrix:
        return None
    weights = Weights(model.module, family, tensors or {}, torch.bfloat16 if model.precision == "bfloat16" else None)
    return LeanForward(model.module, family, weights) if weights.plain() else None


class LeanForward:
    """Satisfies ``Forward``, of the weights at the time it was made, and of adapters as they were when first carried.

    The caller need not turn on autocast.
    """

    def __init__(self, model: PreTrainedModel, family: Family, weights: "Weights") -> None:
        config = model.config
        trunk = model.get_submodule(family.trunk)
        embedding = trunk.get_submodule(family.embedding)
        self.embedding = weights.of(f"{family.trunk}.{family.embedding}.weight")
        self._scale = embedding.embed_scale.to(self.embedding.dtype) if family.scaled_embedding else None
        self._positions = weights.of(f"{family.trunk}.{family.positions}.weight") if family.positions else None
        self._rope = None if family.positions else Rope(trunk.get_submodule("rotary_emb"), self.embedding)
        layers = range(config.num_hidden_layers)
        self._kinds = [config.layer_types[i] if family.rope_by_layer_type else None for i in layers]
        self.layers = [_layer(config, family, weights, i) for i in layers]
        self.final_norm = weights.norm(f"{family.trunk}.{family.final_norm}")
        self.head = weights.product(("lm_head",))
        self._adapters = Adapters(weights.products)
        self.numbers = sum(product.weight.numel() for product in weights.products)
        """By which each token is multiplied."""

    @property
    def rotates_alike(self) -> bool:
        """Whether positions are rotations, and the same in all layers, of embeddings that are taken as they are."""
        return self._rope is not None and set(self._kinds) == {None} and self._scale is None

    def rotary(self, length: int) -> tuple[Tensor, Tensor]:
        """Cosines and sines [at least ``length``, size] where it ``rotates_alike``."""
        if self._rope is None:
            raise ValueError("positions are learned here")
        return self._rope.tables(length, {None})[None]

    def updates(self, adapter: Adapter) -> Updates:
        """What an adapter adds to the products."""
        return self._adapters.updates(adapter)

    @torch.no_grad()
    def logits(
        self,
        tokens: Tensor,
        positions: Tensor,
        attention: Attention,
        *,
        wanted: Tensor | None = None,
        carried: Sequence[Carried] = (),
    ) -> Tensor:
        """See ``Forward``."""
        x = self.embedded(tokens, positions)
        rotations = self.rotations(positions)
        beside = self._adapters.beside(carried, len(tokens), tokens.device)
        for layer, rotation in zip(self.layers, rotations, strict=True):
            attended = layer.attended(x, rotation, attention, beside)
            if wanted is not None and layer is self.layers[-1]:  # nobody asks anything more of the others
                x, attended = x.index_select(0, wanted), attended.index_select(0, wanted)
                beside = None if beside is None else beside.of(wanted)
            layer.finish(x, attended, beside)
        return applied(self.head, self.final_norm(x), None)

    def embedded(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """The residual stream [N, hidden] before the first layer."""
        x = functional.embedding(tokens, self.embedding)
        if self._scale is not None:
            x.mul_(self._scale)
        if self._positions is not None:
            x.add_(functional.embedding(positions, self._positions))
        return x

    def rotations(self, positions: Tensor) -> list[Rotation | None]:
        """By layer; none where positions are learned."""
        if self._rope is None:
            return [None] * len(self.layers)
        found = self._rope.at(positions, self._kinds)
        return [found[kind] for kind in self._kinds]


class Weights:
    """The parameters of one model by the path of their module, each as it is or another value in its place."""

    def __init__(
        self, model: PreTrainedModel, family: Family, tensors: Mapping[str, Tensor], dtype: torch.dtype | None
    ) -> None:
        self.products: list[Product] = []
        self._modules = dict(model.named_modules())
        self._names = {id(parameter): name for name, parameter in model.named_parameters()}  # tied ones once
        self._config, self._family = model.config, family
        self._tensors = tensors
        self._dtype = dtype
        self._epsilon = torch.tensor(float(getattr(model.config, family.epsilon)), device=model.device)

    def plain(self) -> bool:
        """Whether all that is multiplied is a linear layer, not something put in its place."""
        family, layers = self._family, range(self._config.num_hidden_layers)
        within = (*family.query_key_value, family.output, *family.widening, family.narrowing)
        paths = [f"{family.trunk}.{family.layers}.{i}.{path}" for i in layers for path in within]
        return all(type(self._modules.get(path)) in (nn.Linear, Conv1D) for path in (*paths, "lm_head"))

    def of(self, path: str) -> Tensor:
        """A parameter's value."""
        module, _, name = path.rpartition(".")
        parameter = getattr(self._modules[module], name)
        value: Tensor = self._tensors.get(self._names[id(parameter)], parameter)
        return value.detach()

    def scale(self, path: str) -> float:
        """By which an attention multiplies products of queries and keys."""
        return float(self._modules[path].scaling)

    def product(self, paths: tuple[str, ...]) -> Product:
        """Of linear layers that share their input, in the type that the model multiplies in."""
        layers = [self._modules[path] for path in paths]
        weights = [self.of(f"{path}.weight") for path in paths]
        if isinstance(layers[0], Conv1D):
            weights = [weight.t() for weight in weights]
        biases = [self.of(f"{path}.bias") for path, layer in zip(paths, layers, strict=True) if layer.bias is not None]
        weight, bias = fused(weights), fused(biases) if biases else None
        dtype = self._dtype or weight.dtype
        widths = tuple(len(each) for each in weights)
        made = Product(len(self.products), weight.to(dtype), None if bias is None else bias.to(dtype), paths, widths)
        self.products.append(made)
        return made

    def norm(self, path: str) -> Norm:
        """One of the model's norms."""
        if self._family.norm != "mean and variance":
            return self.rms((path,), (1,))
        weight, bias = self.of(f"{path}.weight"), self.of(f"{path}.bias")
        epsilon = float(getattr(self._config, self._family.epsilon))
        return functools.partial(
            functional.layer_norm, normalized_shape=weight.shape, weight=weight, bias=bias, eps=epsilon
        )

    def rms(self, paths: Sequence[str], counts: Sequence[int]) -> Norm:
        """Several norms by the root mean square as one, each of as many heads as is said."""
        weights = [self.of(f"{path}.weight").expand(n, -1) for path, n in zip(paths, counts, strict=True)]
        weight = torch.cat(weights) if len(weights) > 1 else weights[0][0]
        dtype = weight.dtype
        if self._family.norm == "rms from one":
            weight = weight.float() + 1
        return RmsNorm(weight, self._epsilon, dtype)


def _layer(config: PretrainedConfig, family: Family, weights: Weights, number: int) -> LeanLayer:
    prefix = f"{family.trunk}.{family.layers}.{number}."
    heads = int(config.num_attention_heads)
    key_heads = int(getattr(config, "num_key_value_heads", heads))

    def product(*paths: str) -> Product:
        return weights.product(tuple(prefix + path for path in paths))

    def norm(path: str) -> Norm:
        return weights.norm(prefix + path)

    head_norms = [prefix + path for path in family.head_norms]
    return LeanLayer(
        number=number,
        query_key_value=product(*family.query_key_value),
        output=product(family.output),
        widening=product(*family.widening),
        narrowing=product(family.narrowing),
        before_attention=norm(family.before_attention),
        after_attention=norm(family.after_attention) if family.after_attention else None,
        before_mlp=norm(family.before_mlp),
        after_mlp=norm(family.after_mlp) if family.after_mlp else None,
        head_norm=weights.rms(head_norms, (heads, key_heads)) if head_norms else None,
        activation=ACTIVATIONS[getattr(config, family.activation)],
        gated=family.gated,
        heads=heads,
        key_heads=key_heads,
        size=int(getattr(config, "head_dim", None) or config.hidden_size // heads),
        scale=weights.scale(prefix + family.attention),
        window=window(config, family, number),
    )
