"""AdamW over a policy's trained tensors, with its state as plain named tensors."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fettle.config import AdamW
from fettle.engine.local.flat import Flat
from fettle.engine.local.pieces import Piece, Rows
from fettle.errors import CheckpointError

MOMENTS = ("exp_avg", "exp_avg_sq")


class Optimizer:
    """Steps all parameters as the one buffer that they lie in. Settings come with each step, so a schedule is the
    caller's.

    A parameter that no loss reached has a gradient of zero: its moments and its weights decay with the others'.
    """

    def __init__(self, flat: Flat) -> None:
        self._flat = flat
        self._whole = nn.Parameter(flat.values)
        self._adam = torch.optim.AdamW([self._whole], fused=True)

    def step(self, settings: AdamW) -> tuple[float, bool]:
        """Clip, step and clear the gradients.

        Returns the global gradient norm before clipping, and whether the weights moved: a norm that is not
        finite leaves weights and moments as they were. Memory is all taken before anything is changed.
        """
        gradients = self._flat.gradients
        norm = self._flat.norm()
        moved = gradients is not None and math.isfinite(norm)
        if gradients is not None and moved:
            if not self.held:
                self.put_back(self._beginning())
            if settings.clip_norm is not None and norm > settings.clip_norm:
                gradients.mul_(settings.clip_norm / norm)
            self._adam.param_groups[0].update(
                lr=settings.learning_rate,
                betas=(settings.beta1, settings.beta2),
                eps=settings.eps,
                weight_decay=settings.weight_decay,
            )
            self._whole.grad = gradients
            self._adam.step()
            self._whole.grad = None
            self._flat.changed()
        self._flat.clear()
        return norm, moved

    def state(self) -> dict[str, Tensor]:
        """Moments and step counts by parameter name, as much of each as is here; empty before the first step."""
        if not self.held:
            return {}
        named = {f"step/{name}": self.held["step"].clone() for name in self._flat.parameters}
        for moment in MOMENTS:
            named |= {f"{moment}/{name}": part for name, part in self._flat.views(self.held[moment]).items()}
        return named

    def pieces(self) -> dict[str, Piece]:
        """The state, and which rows of it are here."""
        return {key: (value, self.rows(key) or Rows(())) for key, value in self.state().items()}

    def rows(self, key: str) -> Rows | None:
        """What is here of a moment of this policy; None of everything else."""
        moment, _, name = key.partition("/")
        return self._flat.rows.get(name) if moment in MOMENTS else None

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take up ``state``, as :meth:`state` gave it, in the place of what is there.

        What it does not speak of begins at zero. Steps are counted together: the greatest count is everybody's.

        Raises:
            CheckpointError: it names other parameters, or other shapes, or does not say how many steps were made.
        """
        for full_name, value in state.items():
            key, _, name = full_name.partition("/")
            parameter = self._flat.parameters.get(name)
            if parameter is None or (key != "step" and parameter.shape != value.shape):
                raise CheckpointError(f"the checkpoint's optimizer state {full_name} does not belong to this policy")
        if not state:
            self.put_back({})
            return
        steps = [value.float() for full_name, value in state.items() if full_name.startswith("step/")]
        if not steps:
            raise CheckpointError("the checkpoint's optimizer state does not say how many steps were made")
        found = self._beginning()
        for moment in MOMENTS:
            for name, part in self._flat.views(found[moment]).items():
                if f"{moment}/{name}" in state:
                    part.copy_(state[f"{moment}/{name}"])
        found["step"].copy_(torch.stack(steps).max())
        self.put_back(found)

    def copy(self) -> dict[str, Tensor]:
        """Of the state as it is held, for :meth:`put_back`."""
        return {key: value.clone() for key, value in self.held.items()}

    def put_back(self, state: dict[str, Tensor]) -> None:
        """Hold ``state`` itself, as :meth:`copy` gave it."""
        self._adam.state[self._whole] = state

    def _beginning(self) -> dict[str, Tensor]:
        """The state before the first step."""
        moments = {moment: torch.zeros_like(self._flat.values) for moment in MOMENTS}
        return {"step": torch.zeros((), device=self._flat.values.device), **moments}

    @property
    def held(self) -> dict[str, Tensor]:
        """The state itself: two moments [N] and a step count; empty before the first step."""
        held: dict[str, Tensor] = self._adam.state.get(self._whole, {})
        return held
