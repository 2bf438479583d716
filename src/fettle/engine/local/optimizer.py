"""AdamW over a policy's trained tensors, with its state as plain named tensors."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fettle.config import AdamW
from fettle.errors import CheckpointError


class Optimizer:
    """Steps named parameters. Settings come with each step, so a schedule is the caller's."""

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self._parameters = dict(parameters)
        self._adam = torch.optim.AdamW(self._parameters.values(), fused=True)

    def step(self, settings: AdamW) -> tuple[float, bool]:
        """Clip, step and clear the gradients.

        Returns the global gradient norm before clipping, and whether the weights moved: a norm that is not
        finite leaves weights and moments as they were.
        """
        gradients = [p.grad for p in self._parameters.values() if p.grad is not None]
        norm = float(nn.utils.get_total_norm(gradients)) if gradients else 0.0
        moved = bool(gradients) and torch.isfinite(torch.tensor(norm)).item()
        if moved:
            if settings.clip_norm is not None and norm > settings.clip_norm:
                torch._foreach_mul_(gradients, settings.clip_norm / norm)
            self._adam.param_groups[0].update(
                lr=settings.learning_rate,
                betas=(settings.beta1, settings.beta2),
                eps=settings.eps,
                weight_decay=settings.weight_decay,
            )
            self._adam.step()
        self._adam.zero_grad()
        return norm, bool(moved)

    def state(self) -> dict[str, Tensor]:
        """Moments and step counts by name; empty before the first step."""
        return {
            f"{key}/{name}": value.detach()
            for name, parameter in self._parameters.items()
            for key, value in self._adam.state.get(parameter, {}).items()
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take up ``state``, as :meth:`state` gave it, in the place of what is there.

        Raises:
            CheckpointError: it names other parameters, or other shapes.
        """
        self._adam.state.clear()
        for full_name, value in state.items():
            key, _, name = full_name.partition("/")
            parameter = self._parameters.get(name)
            if parameter is None or (key != "step" and parameter.shape != value.shape):
                raise CheckpointError(f"the checkpoint's optimizer state {full_name} does not belong to this policy")
            self._adam.state[parameter][key] = value.clone().to(parameter.device)
