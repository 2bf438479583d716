"""A frozen model's layers parted among ranks: each holds a piece of every weight, and gathers a layer as it is run."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from fettle.errors import ModelError


def part_layers(module: nn.Module) -> None:
    """Part the layers of a model that is not trained; embeddings, head and last norm stay whole on every rank.

    All ranks run it equally often from here on, forwards and backwards.

    Raises:
        ModelError: the model has no stack of layers.
    """
    stacks = [each for each in module.modules() if isinstance(each, nn.ModuleList) and len(each)]
    if not stacks:
        raise ModelError("the model has no stack of layers to part among ranks: unset engine.sharded_base")
    device = next(module.parameters()).device.type
    mesh = DeviceMesh(device, list(range(dist.get_world_size())))
    for layer in max(stacks, key=lambda stack: sum(each.numel() for each in stack.parameters())):
        fully_shard(layer, mesh=mesh, reshard_after_forward=True)


@contextmanager
def gathered(module: nn.Module) -> Iterator[None]:
    """A parted model with its layers whole on every rank, which all do at once.

    They are copies: what is read by other ways than torch's keeps its memory, which FSDP gives back.
    """
    layers: list[Any] = [each for each in module.modules() if isinstance(each, FSDPModule)]
    for layer in layers:
        layer.set_reshard_after_forward(False)
        layer.unshard()
        for part in layer.modules():
            for name, whole in part.named_parameters(recurse=False):
                setattr(part, name, nn.Parameter(whole.detach().clone(), requires_grad=False))
    try:
        yield
    finally:
        for layer in layers:
            layer.set_reshard_after_forward(True)
            layer.reshard()
