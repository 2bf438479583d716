"""Low-rank adapters beside frozen weights (Hu et al., 2021, arXiv:2106.09685), written to disk in PEFT's layout.

The frozen model is never changed: each adapted layer has a slot, a forward hook that adds the update of
whichever adapter is in it. One model so serves many adapters, and none of them.
"""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from fettle.config import LoRA
from fettle.engine.local.randomness import generator
from fettle.errors import CheckpointError, ConfigError

PEFT_PREFIX = "base_model.model."


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
        update = nn.functional.linear(nn.functional.linear(x, self.down), self.up)
        return output + (self.scale * update).to(output.dtype)


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
            named[f"{PEFT_PREFIX}{path}.lora_A.weight"] = down
            named[f"{PEFT_PREFIX}{path}.lora_B.weight"] = up
        return named


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
        for path, layer in _targets(self._model, settings.targets).items():
            if path not in self._slots:
                self._slots[path] = Slot()
                layer.register_forward_hook(self._slots[path])
            fan_in, fan_out = _fans(layer)
            weight = next(layer.parameters())
            down = torch.empty(settings.rank, fan_in)
            bound = 1 / math.sqrt(fan_in)
            down.uniform_(-bound, bound, generator=generator(seed, "lora", path))
            up = torch.zeros(fan_out, settings.rank)
            adapter.layers[path] = (nn.Parameter(down.to(weight.device)), nn.Parameter(up.to(weight.device)))
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
    (folder / "adapter_config.json").write_text(json.dumps(layout, indent=2) + "\n")
    tensors = {name: parameter.detach().contiguous() for name, parameter in adapter.parameters.items()}
    safetensors.torch.save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def read_adapter(adapter: Adapter, folder: Path) -> None:
    """Fill ``adapter`` with the tensors in ``folder``.

    Raises:
        CheckpointError: they belong to other layers, or to another rank.
    """
    tensors = safetensors.torch.load_file(folder / "adapter_model.safetensors")
    parameters = adapter.parameters
    if {name: p.shape for name, p in parameters.items()} != {name: t.shape for name, t in tensors.items()}:
        raise CheckpointError(f"the adapter in {folder} has other layers or another rank than the policy asks for")
    for name, parameter in parameters.items():
        parameter.data.copy_(tensors[name])


def merge_adapter(model: nn.Module, folder: Path) -> None:
    """Add the update of the adapter in ``folder`` to the model's own weights."""
    layout = json.loads((folder / "adapter_config.json").read_text())
    tensors = safetensors.torch.load_file(folder / "adapter_model.safetensors")
    scale = layout["lora_alpha"] / layout["r"]
    modules = dict(model.named_modules())
    for name, down in tensors.items():
        if not name.endswith(".lora_A.weight"):
            continue
        path = name.removeprefix(PEFT_PREFIX).removesuffix(".lora_A.weight")
        if path not in modules:
            raise CheckpointError(f"the adapter in {folder} is for a layer {path}, which the model does not have")
        layer = modules[path]
        update = scale * (tensors[name.replace("lora_A", "lora_B")] @ down)  # [out, in]
        weight = next(layer.parameters())
        weight.data += (update.t() if isinstance(layer, Conv1D) else update).to(weight)


def _targets(model: nn.Module, names: tuple[str, ...]) -> Mapping[str, nn.Module]:
    head = getattr(model, "get_output_embeddings", lambda: None)()
    linear = {p: m for p, m in model.named_modules() if isinstance(m, nn.Linear | Conv1D) and m is not head}
    if names == ("all-linear",):
        return linear
    leaves = {path.rpartition(".")[2] for path in linear}
    for name in names:
        if name not in leaves:
            raise ConfigError(
                f"policy.lora.targets names {name!r}, and the model's linear layers are {', '.join(sorted(leaves))}"
            )
    return {path: layer for path, layer in linear.items() if path.rpartition(".")[2] in names}


def _fans(layer: nn.Module) -> tuple[int, int]:
    weight = next(layer.parameters())
    fan_out, fan_in = weight.shape
    return (fan_out, fan_in) if isinstance(layer, Conv1D) else (fan_in, fan_out)
