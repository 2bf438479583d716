"""A head: one number from a hidden state, trained with the policy and saved beside it."""

from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from fettle.errors import CheckpointError

HEAD = "head.safetensors"


class Head:
    """``w · h + b``, in float32. A new one says 0 of everything, so that a critic begins with no opinion."""

    def __init__(self, width: int, device: torch.device) -> None:
        self.weight = nn.Parameter(torch.zeros(1, width, device=device))
        self.bias = nn.Parameter(torch.zeros(1, device=device))

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """By name, as saved."""
        return {"head.weight": self.weight, "head.bias": self.bias}

    def __call__(self, hidden: Tensor) -> Tensor:
        """One number for each of N hidden states [N, H]."""
        with torch.autocast(hidden.device.type, enabled=False):
            return nn.functional.linear(hidden.to(self.weight.dtype), self.weight, self.bias)[:, 0]

    def save(self, folder: Path) -> None:
        """Write it into a checkpoint."""
        safetensors.torch.save_file({name: p.detach() for name, p in self.parameters.items()}, folder / HEAD)

    def read(self, folder: Path) -> None:
        """Take up the head in ``folder``.

        Raises:
            CheckpointError: it is of another width, or is none of ours.
        """
        found = safetensors.torch.load_file(folder / HEAD)
        if found.keys() != self.parameters.keys():
            raise CheckpointError(
                f"{folder / HEAD} holds {', '.join(sorted(found)) or 'nothing'}, and a head is "
                f"{' and '.join(self.parameters)}: take the file away, or train the head here"
            )
        for name, value in found.items():
            parameter = self.parameters[name]
            if parameter.shape != value.shape:
                raise CheckpointError(
                    f"{folder / HEAD} is made for hidden states of width {value.shape[-1]}, and the model's are "
                    f"{self.weight.shape[-1]} wide: use the model that it was trained with"
                )
            parameter.data.copy_(value)


def has_head(folder: Path) -> bool:
    """Whether a checkpoint holds one."""
    return (folder / HEAD).is_file()
