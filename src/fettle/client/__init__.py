"""An engine reached over HTTP, and the client of a training service; no torch."""

from fettle.client.engine import HTTPEngine
from fettle.client.futures import Future, FutureGroup
from fettle.client.policy import HTTPPolicy, HTTPSampler
from fettle.client.sampling import SamplingClient
from fettle.client.service import ServiceClient
from fettle.client.training import TrainingClient

__all__ = [
    "Future",
    "FutureGroup",
    "HTTPEngine",
    "HTTPPolicy",
    "HTTPSampler",
    "SamplingClient",
    "ServiceClient",
    "TrainingClient",
]
