"""A service over a tiny model, and the public SDK in front of it."""

import os
from collections.abc import Iterator

import httpx
import pytest
import tinker
from transformers import AutoModelForCausalLM, PreTrainedModel

from tests.service.faces.tinker.programs import http_of, sdk_of
from tests.service.served import NAME, Served

os.environ["TINKER_TELEMETRY"] = "0"
os.environ["NO_PROXY"] = "127.0.0.1"


@pytest.fixture
def http(shared: Served) -> Iterator[httpx.Client]:
    """A client that speaks the protocol by hand."""
    with http_of(shared) as client:
        yield client


@pytest.fixture
def sdk(shared: Served) -> Iterator[tinker.ServiceClient]:
    """The public SDK."""
    with sdk_of(shared) as client:
        yield client


@pytest.fixture
def training(sdk: tinker.ServiceClient) -> tinker.TrainingClient:
    """A model being trained."""
    return sdk.create_lora_training_client(NAME, rank=4, seed=3).result()


@pytest.fixture(scope="session")
def reference(tiny_model: str) -> PreTrainedModel:
    """The base model, by hand."""
    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype="float32").eval()
