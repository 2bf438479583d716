"""What an engine of given settings can do on this machine, and how much memory a policy would take."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import psutil
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from fettle.config import LocalEngine, PolicySpec, TinyModel
from fettle.config.devices import index_of
from fettle.engine.base import Capabilities
from fettle.engine.local.lora import fans, targets
from fettle.engine.local.parted import layers_of
from fettle.engine.local.quantized import BLOCK, Quantization
from fettle.engine.local.ways import config_of, ways
from fettle.errors import EngineError, ModelError
from fettle.losses import LOSSES

TRAINED_BYTES = 4 * 5
"""Of each trained number, all in float32: itself, its gradient and what a further call adds to it, two moments."""

PARTED_BYTES = TRAINED_BYTES + 4 * 2
"""The same of rows of layers that are parted: FSDP has them once more, and their gradient as it is made."""

ROW_BYTES: Mapping[Quantization, Callable[[int], int]] = MappingProxyType(
    {"int8": lambda width: width + 4, "nf4": lambda width: math.ceil(width / BLOCK) * (BLOCK // 2 + 4)}
)
"""Of a row of so many weights in few bits, its scales with it."""


def capabilities(settings: LocalEngine, policy: PolicySpec | None = None) -> Capabilities:
    """What a backend of these settings could do, and how it would run ``policy``, told without making either.

    A device that is not here has no memory: a recipe for a bigger machine can still be planned on this one.
    """
    device = settings.device
    if device == "auto":
        device = "cuda" if settings.gpu_ids or torch.cuda.is_available() else "cpu"
    if device == "cpu":
        memory = psutil.virtual_memory().total
    elif torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(torch.device(device)).total_memory
    else:
        memory = psutil.virtual_memory().total if torch.backends.mps.is_available() else 0
    return Capabilities(
        engine="local",
        device=device,
        losses=tuple(LOSSES),
        precisions=("float32", "bfloat16"),
        threads=settings.threads or torch.get_num_threads(),
        memory_bytes=memory,
        sampling_beside=settings.sampling_threads is not None,
        paths={} if policy is None else ways(settings, policy),
    )


def device_of(wanted: str, gpu_ids: Sequence[int] = ()) -> torch.device:
    """The device that ``engine.device`` names, or the GPU that ``engine.gpu_ids`` does.

    Raises:
        EngineError: it is not here.
    """
    if gpu_ids:
        index, seen = index_of(gpu_ids[0]), torch.cuda.device_count()
        if index >= seen:
            raise EngineError(f"engine.gpu_ids names GPU {gpu_ids[0]}, and torch sees {seen} here: name one of those")
        return torch.device("cuda", index)
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if wanted == "cuda" and not torch.cuda.is_available():
        raise EngineError(
            "engine.device is cuda, and torch sees no GPU here: use cpu, or install a CUDA build of torch"
        )
    if wanted == "mps" and not torch.backends.mps.is_available():
        raise EngineError("engine.device is mps, and torch sees none here: use cpu")
    return torch.device(wanted)


def needed_bytes(spec: PolicySpec, *, base_here: bool, ranks: int = 1) -> int:
    """What a new policy would take of a rank's memory, if layers are parted among ``ranks``.

    Its own weights with their gradients and moments; and the base of an adapter, unless that is here already.

    Raises:
        ModelError: the model's config is not on this machine.
        ConfigError: ``lora.targets`` names a layer that the model does not have.
    """
    outline = _outline(spec.model)
    if spec.lora is None:
        parted = _parted(outline) if ranks > 1 else 0
        return TRAINED_BYTES * (_numbers(outline) - parted) + PARTED_BYTES * math.ceil(parted / ranks)
    adapted = targets(outline, spec.lora.targets).values()
    own = TRAINED_BYTES * sum(spec.lora.rank * sum(fans(layer)) for layer in adapted)
    return own if base_here else own + _frozen_bytes(spec, ranks)


def _frozen_bytes(spec: PolicySpec, ranks: int) -> int:
    outline = _outline(spec.model)
    width = 2 if spec.precision == "bfloat16" else 4
    if spec.quantization is None:
        return width * _numbers(outline, ranks)
    stored = [layer for layer in targets(outline, ("all-linear",)).values() if isinstance(layer, nn.Linear)]
    rows = sum(layer.out_features * ROW_BYTES[spec.quantization](layer.in_features) for layer in stored)
    return width * (_numbers(outline) - sum(layer.weight.numel() for layer in stored)) + rows


@functools.lru_cache(maxsize=16)
def _outline(model: str | TinyModel) -> nn.Module:
    """The model without its weights."""
    config = config_of(model)
    if config is None:
        raise ModelError(f"how large {model} is cannot be told: its config is not on this machine")
    with torch.device("meta"):
        # With no type, torch's default is left alone, which another thread may be making tensors by.
        outline: nn.Module = AutoModelForCausalLM.from_config(config, dtype=None)
    return outline


def _numbers(outline: nn.Module, ranks: int = 1) -> int:
    """Of one rank, where layers are parted and all else is whole."""
    parted = _parted(outline)
    return sum(parameter.numel() for parameter in outline.parameters()) - parted + math.ceil(parted / ranks)


def _parted(outline: nn.Module) -> int:
    return sum(parameter.numel() for layer in layers_of(outline) for parameter in layer.parameters())
