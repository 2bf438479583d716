"""Torch generators with names."""

import torch

from fettle.randomness import key


def generator(*parts: object, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator seeded by the key of ``parts``."""
    return torch.Generator(device=device).manual_seed(key(*parts))
