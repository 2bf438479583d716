"""What computes: the seam, and in ``local`` the torch backend of this process."""

from fettle.engine.base import (
    Backend,
    Capabilities,
    Engine,
    Policy,
    Pooling,
    ReadRequest,
    Sampler,
    SampleRequest,
    Watch,
)

__all__ = ["Backend", "Capabilities", "Engine", "Policy", "Pooling", "ReadRequest", "SampleRequest", "Sampler", "Watch"]
