"""An engine reached over HTTP, and the client of a training service; no torch."""

from fettle.client.engine import HTTPEngine
from fettle.client.policy import HTTPPolicy, HTTPSampler

__all__ = ["HTTPEngine", "HTTPPolicy", "HTTPSampler"]
