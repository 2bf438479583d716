"""The engine of this process: weights, gradients and samples, in torch."""

from fettle.engine.local.backend import LocalBackend, capabilities
from fettle.engine.local.tiny import make_tiny_model

__all__ = ["LocalBackend", "capabilities", "make_tiny_model"]
