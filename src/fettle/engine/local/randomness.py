"""Generators with names: every draw is keyed by what it is for, never by the order of draws."""

import hashlib

import torch


def key(*parts: object) -> int:
    """63 bits that depend on every part.

    >>> key(0, "lora", "layers.0.q_proj") == key(0, "lora", "layers.0.k_proj")
    False
    """
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(*parts: object, device: torch.device | str = "cpu") -> torch.Generator:
    """A torch generator seeded by :func:`key`."""
    return torch.Generator(device=device).manual_seed(key(*parts))
