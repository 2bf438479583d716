"""What computes: the seam, and in ``local`` the torch backend of this process."""

from fettle.engine.base import Backend, Capabilities, Engine, Policy, Sampler, SampleRequest

__all__ = ["Backend", "Capabilities", "Engine", "Policy", "SampleRequest", "Sampler"]
