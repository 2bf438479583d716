"""A model's layers parted among ranks by FSDP2: each holds rows of every weight, and gathers a layer as it is run."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from fettle.engine.local.flat import Flat, norm_of
from fettle.engine.local.group import Group
from fettle.engine.local.pieces import Rows, rows_of
from fettle.errors import ModelError


def part_layers(module: nn.Module) -> None:
    """Part the layers of a model; embeddings, head and last norm stay whole on every rank.

    All ranks run it equally often from here on, forwards and backwards. Gradients are sums over ranks, not means.

    Raises:
        ModelError: the model has no stack of layers.
    """
    layers = layers_of(module)
    if not layers:
        raise ModelError("the model has no stack of layers to part among ranks: unset engine.sharded")
    device = next(module.parameters()).device.type
    mesh = DeviceMesh(device, list(range(dist.get_world_size())))
    for layer in layers:
        parted: Any = fully_shard(layer, mesh=mesh, reshard_after_forward=True)
        parted.set_gradient_divide_factor(1.0)
        parted.set_force_sum_reduction_for_comms(True)


def layers_of(module: nn.Module) -> list[nn.Module]:
    """The stack that holds most of a model, which is what is parted; empty where it has none."""
    stacks = [each for each in module.modules() if isinstance(each, nn.ModuleList) and len(each)]
    return list(max(stacks, key=lambda stack: sum(each.numel() for each in stack.parameters()), default=()))


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


@torch.no_grad()
def whole_state(module: nn.Module, *, kept: bool, lent: bool = False) -> dict[str, Tensor]:
    """The module's state by name, in memory that is not the device's: copies, or what is ``lent`` of it.

    What is parted is gathered one tensor at a time, which all ranks do at once. Empty where it is not to be ``kept``.
    Weights that are tied share their copy.
    """
    found: dict[str, Tensor] = {}
    copies: dict[int, Tensor] = {}
    for name, value in module.state_dict().items():
        if isinstance(value, DTensor):
            whole = value.full_tensor()
            if kept:
                found[name] = whole.to("cpu")
        elif kept:
            place = value.data_ptr()
            if place not in copies:
                copies[place] = value if lent else value.to("cpu", copy=True)
            found[name] = copies[place]
    return found


class PartedFlat(Flat):
    """Parameters of which some are parted: of those, this rank's rows lie in the buffers, as copies."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], group: Group) -> None:
        self._group = group
        self._parted: dict[str, Any] = {name: p for name, p in parameters.items() if isinstance(p, DTensor)}
        own = {name: nn.Parameter(each.to_local().detach().clone()) for name, each in self._parted.items()}
        super().__init__({**parameters, **own})
        self.rows = {name: self._rows(name) for name in self.shapes}

    def _rows(self, name: str) -> Rows:
        if name not in self._parted:
            return Rows(self.shapes[name])
        rows = rows_of(tuple(self._parted[name].shape), self._group)
        assert rows.own == self.shapes[name], f"FSDP parts {name} otherwise than by rows"
        return rows

    @torch.no_grad()
    def changed(self) -> None:
        """The layers compute with rows of their own."""
        for name, parameter in self._parted.items():
            parameter.to_local().copy_(self.parameters[name])

    @contextmanager
    def holding(self, values: Mapping[str, Tensor]) -> Iterator[None]:
        """See ``Flat``."""
        try:
            with super().holding(values):
                self.changed()
                yield
        finally:
            self.changed()

    def norm(self) -> float:
        """Over all ranks, and the same on each."""
        if self.gradients is None:
            return 0.0
        views = self.views(self.gradients)
        parted, whole = (
            [view.reshape(-1) for name, view in views.items() if (name in self._parted) == kind]
            for kind in (True, False)
        )
        squares = torch.tensor([norm_of(torch.cat(parted)) ** 2], dtype=torch.float64, device=self.values.device)
        self._group.add_up(squares)
        return math.sqrt(float(squares) + norm_of(torch.cat(whole)) ** 2)

    @contextmanager
    def all_or_nothing(self, add_up: Callable[[Tensor], None] = lambda made: None) -> Iterator[None]:
        """See ``Flat``. Of what is parted, the sum over ranks is made as the gradient is."""
        try:
            with super().all_or_nothing(lambda made: self._join(made, add_up)):
                yield
        finally:
            for parameter in self._parted.values():
                parameter.grad = None

    def _join(self, made: Tensor, add_up: Callable[[Tensor], None]) -> None:
        views = self.views(made)
        for name, parameter in self._parted.items():
            if parameter.grad is not None:
                views[name].add_(parameter.grad.to_local())
        whole = [view for name, view in views.items() if name not in self._parted]
        joint = torch.cat([view.reshape(-1) for view in whole])
        add_up(joint)
        for view, part in zip(whole, torch.split(joint, [view.numel() for view in whole]), strict=True):
            view.copy_(part.view_as(view))


def flat_of(parameters: Mapping[str, nn.Parameter], group: Group) -> Flat:
    """Parameters laid end to end, whether some are parted or none."""
    if any(isinstance(parameter, DTensor) for parameter in parameters.values()):
        return PartedFlat(parameters, group)
    return Flat(parameters)
