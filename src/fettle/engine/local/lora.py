"""Low-rank adapters beside frozen weights (Hu et al., 2021, arXiv:2106.09685), written to disk in PEFT's layout.

The frozen model is never changed: each adapted layer has a slot, a forward hook that adds the update of
whichever adapter is in it. One model so serves many adapters, and none of them.
"""

import itertools
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import safetensors.torch
import torch
from pydantic import BaseModel, Field, ValidationError
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from fettle.config import LoRA
from fettle.engine.local.generators import generator
from fettle.engine.local.quantized import Quantized
from fettle.errors import CheckpointError, ConfigError, ModelError

PEFT_PREFIX = "base_model.model."
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


class Layout(BaseModel):
    """What is read of PEFT's ``adapter_config.json``. Variants of LoRA that would need other arithmetic are refused."""

    peft_type: Literal["LORA"]
    base_model: str = Field(validation_alias="base_model_name_or_path")
    r: int
    lora_alpha: float
    bias: Literal["none"] = "none"
    use_rslora: Literal[False] = False
    use_dora: Literal[False] = False
    rank_pattern: dict[str, int] = Field(default={}, max_length=0)
    alpha_pattern: dict[str, float] = Field(default={}, max_length=0)
    modules_to_save: None = None


@dataclass(slots=True)
class Slot:
    """What a layer's hook adds: ``scale · B A x``, or nothing while it is empty."""

    down: Tensor | None = None  # A [r, in]
    up: Tensor | None = None  # B [out, r]
    scale: float = 0.0
    dropout: float = 0.0
    random: torch.Generator | None = None

    def __call__(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        """The hook."""
        if self.down is None or self.up is None:
            return None
        x = inputs[0].to(self.down.dtype)
        if self.dropout and self.random is not None:
            keep = torch.empty_like(x).bernoulli_(1 - self.dropout, generator=self.random)
            x = x * keep / (1 - self.dropout)
        inner = nn.functional.linear(x, self.down)
        added = torch.addmm(output.flatten(0, -2), inner.flatten(0, -2), self.up.t(), alpha=self.scale)
        return added.view_as(output)


@dataclass(slots=True)
class Adapter:
    """The trained tensors of one policy: for each adapted layer, ``A [r, in]`` and ``B [out, r]``."""

    settings: LoRA
    layers: dict[str, tuple[nn.Parameter, nn.Parameter]] = field(default_factory=dict)

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """By PEFT's names."""
        named = {}
        for path, (down, up) in self.layers.items():
            named[_down(path)] = down
            named[_up(path)] = up
        return named

    def holding(self, values: Mapping[str, Tensor]) -> "Adapter":
        """The same adapter with other values, by PEFT's names; they are shared, and not trained."""
        layers = {
            path: (nn.Parameter(values[_down(path)], False), nn.Parameter(values[_up(path)], False))
            for path in self.layers
        }
        return Adapter(self.settings, layers)


class Slots:
    """The adapted layers of one model."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._slots: dict[str, Slot] = {}

    def adapter(self, settings: LoRA, *, seed: int) -> Adapter:
        """A fresh adapter: A uniform as PEFT draws it, B zero, so that it changes nothing yet.

        Raises:
            ConfigError: ``targets`` names a layer that the model does not have.
        """
        adapter = Adapter(settings)
        for path, layer in targets(self._model, settings.targets).items():
            if path not in self._slots:
                self._slots[path] = Slot()
                layer.register_forward_hook(self._slots[path])
            fan_in, fan_out = fans(layer)
            device = next(itertools.chain(layer.parameters(), layer.buffers())).device
            down = torch.empty(settings.rank, fan_in)
            bound = 1 / math.sqrt(fan_in)
            down.uniform_(-bound, bound, generator=generator(seed, "lora", path))
            up = torch.zeros(fan_out, settings.rank)
            adapter.layers[path] = (nn.Parameter(down.to(device)), nn.Parameter(up.to(device)))
        return adapter

    @contextmanager
    def holding(self, adapter: Adapter | None, *, random: torch.Generator | None = None) -> Iterator[None]:
        """The model with ``adapter`` in its slots; with ``random``, its dropout is on."""
        for path, slot in self._slots.items():
            if adapter is not None and path in adapter.layers:
                slot.down, slot.up = adapter.layers[path]
                slot.scale = adapter.settings.alpha / adapter.settings.rank
                slot.dropout, slot.random = adapter.settings.dropout, random
        try:
            yield
        finally:
            for slot in self._slots.values():
                slot.down = slot.up = slot.random = None


def write_adapter(adapter: Adapter, folder: Path, *, base_model: str) -> None:
    """``adapter_config.json`` and ``adapter_model.safetensors``, as PEFT reads them."""
    layout = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "r": adapter.settings.rank,
        "lora_alpha": adapter.settings.alpha,
        "lora_dropout": adapter.settings.dropout,
        "target_modules": sorted(adapter.layers),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    (folder / ADAPTER_CONFIG).write_text(json.dumps(layout, indent=2) + "\n")
    tensors = {name: parameter.detach().contiguous() for name, parameter in adapter.parameters.items()}
    safetensors.torch.save_file(tensors, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})


def read_adapter(adapter: Adapter, folder: Path) -> None:
    """Fill ``adapter`` with the tensors in ``folder``.

    Raises:
        CheckpointError: they belong to other layers, or to another rank.
    """
    tensors = safetensors.torch.load_file(folder / ADAPTER_WEIGHTS)
    parameters = adapter.parameters
    if {name: p.shape for name, p in parameters.items()} != {name: t.shape for name, t in tensors.items()}:
        raise CheckpointError(f"the adapter in {folder} has other layers or another rank than the policy asks for")
    for name, parameter in parameters.items():
        parameter.data.copy_(tensors[name])


def read_layout(folder: Path) -> Layout:
    """What the adapter in ``folder`` is.

    Raises:
        ModelError: its config cannot be read, or it is no plain LoRA.
    """
    try:
        return Layout.model_validate_json((folder / ADAPTER_CONFIG).read_text())
    except (OSError, ValidationError) as error:
        why = "; ".join(_faults(error)) if isinstance(error, ValidationError) else str(error)
        raise ModelError(f"the adapter in {folder} cannot be used ({why}): plain LoRA adapters can") from error


def merge_adapter(model: nn.Module, folder: Path) -> None:
    """Add the update of the adapter in ``folder`` to the model's own weights; beside those in few bits it stays whole.

    Raises:
        ModelError: it cannot be read, or is no plain LoRA.
        CheckpointError: it is for layers that the model does not have.
    """
    layout = read_layout(folder)
    try:
        tensors = safetensors.torch.load_file(folder / ADAPTER_WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"the adapter in {folder} cannot be read ({error}): it needs {ADAPTER_WEIGHTS}") from error
    modules = dict(model.named_modules())
    paths = {name.removeprefix(PEFT_PREFIX).rpartition(".lora_")[0] for name in tensors}
    for path in sorted(paths):
        down, up = (tensors.pop(f"{PEFT_PREFIX}{path}.lora_{part}.weight", None) for part in "AB")
        layer = modules.get(path)
        if layer is None or down is None or up is None:
            raise CheckpointError(f"the adapter in {folder} is for a layer {path!r}, which the model does not have")
        scale = layout.lora_alpha / layout.r
        if isinstance(layer, Quantized):
            layer.add(scale * up.float(), down.float())
            continue
        update = scale * (up @ down)  # [out, in]
        weight = next(layer.parameters())
        weight.data += (update.t() if isinstance(layer, Conv1D) else update).to(weight)
    if tensors:
        raise ModelError(f"the adapter in {folder} holds {min(tensors)}, which is no part of plain LoRA")


def _down(path: str) -> str:
    return f"{PEFT_PREFIX}{path}.lora_A.weight"


def _up(path: str) -> str:
    return f"{PEFT_PREFIX}{path}.lora_B.weight"


def _faults(error: ValidationError) -> list[str]:
    return [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()]


def targets(model: nn.Module, names: tuple[str, ...]) -> Mapping[str, nn.Module]:
    """The linear layers that ``names`` speak of, by path.

    Raises:
        ConfigError: one of them is no layer of the model.
    """
    head = getattr(model, "get_output_embeddings", lambda: None)()
    linear = {p: m for p, m in model.named_modules() if isinstance(m, nn.Linear | Conv1D | Quantized) and m is not head}
    if names == ("all-linear",):
        return linear
    leaves = {path.rpartition(".")[2] for path in linear}
    for name in names:
        if name not in leaves:
            raise ConfigError(
                f"policy.lora.targets names {name!r}, and the model's linear layers are {', '.join(sorted(leaves))}"
            )
    return {path: layer for path, layer in linear.items() if path.rpartition(".")[2] in names}


def fans(layer: nn.Module) -> tuple[int, int]:
    """How many numbers go into a linear layer, and come out of it."""
    if isinstance(layer, Quantized):
        return layer.in_features, layer.out_features
    weight = next(layer.parameters())
    fan_out, fan_in = weight.shape
    return (fan_out, fan_in) if isinstance(layer, Conv1D) else (fan_in, fan_out)
