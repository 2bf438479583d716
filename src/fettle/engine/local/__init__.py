"""The engine of this process: weights, gradients and samples, in torch."""

from fettle.engine.local.backend import LocalBackend
from fettle.engine.local.capacity import capabilities
from fettle.engine.local.tiny import make_tiny_model, text_of

__all__ = ["LocalBackend", "capabilities", "make_tiny_model", "text_of"]
