"""What programs of the public SDK say to a server, and what is said by hand where it cannot."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import numpy as np
import tinker
from tinker import types
from tinker.proto.request_conv import forward_backward_request_to_proto

from tests.service.served import PATIENCE_S, Served

PROTOBUF = "application/x-protobuf"
CONTEXT = 64
"""Of the tiny model."""


@contextmanager
def sdk_of(served: Served, key: str | None = None) -> Iterator[tinker.ServiceClient]:
    """The public SDK in front of a service; left open, it would go on telling it that it is there."""
    with tinker.ServiceClient(base_url=served.url, api_key=served.key if key is None else key) as client:
        yield client


def rest_of(served: Served, key: str | None = None) -> tinker.RestClient:
    """The public SDK's other half, which manages."""
    return tinker.RestClient(base_url=served.url, api_key=served.key if key is None else key)


def http_of(served: Served, key: str | None = None) -> httpx.Client:
    """The protocol by hand."""
    headers = {"X-API-Key": served.key if key is None else key}
    return httpx.Client(
        base_url=f"{served.url}/api/v1", headers=headers, timeout=PATIENCE_S, trust_env=False, verify=False
    )


def datum(tokens, targets=None, **inputs) -> types.Datum:
    """A datum of the public SDK: the tokens but the last, and what each predicts."""
    own = {name: types.TensorData.from_numpy(np.asarray(values, np.float32)) for name, values in inputs.items()}
    given = np.asarray(tokens[1:] if targets is None else targets, np.int64)
    return types.Datum(
        model_input=types.ModelInput.from_ints(tokens[:-1] if targets is None else tokens),
        loss_fn_inputs={"target_tokens": types.TensorData.from_numpy(given), **own},
    )


def sequences(count=4, length=12, seed=0) -> list[list[int]]:
    """Tokens to train on."""
    return np.random.default_rng(seed).integers(0, 256, (count, length)).tolist()


def batch(count=4, length=12, seed=0) -> list[types.Datum]:
    """Data to train on, all of whose tokens count."""
    return [datum(tokens, weights=[1.0] * (length - 1)) for tokens in sequences(count, length, seed)]


def prompt(*tokens) -> types.ModelInput:
    return types.ModelInput.from_ints(list(tokens) or [65, 66, 67, 68])


def adam(learning_rate=1e-2, **settings) -> types.AdamParams:
    return types.AdamParams(learning_rate=learning_rate, **settings)


def session(http) -> str:
    """A session by hand."""
    return http.post("/create_session", json={"tags": [], "sdk_version": "0.38.0"}).json()["session_id"]


def made(http, number=0, owner=None, **lora) -> str:
    """A model by hand; its id."""
    body = {"session_id": owner or session(http), "model_seq_id": number, "base_model": "tiny"}
    answer = http.post("/create_model", json={**body, "lora_config": {"rank": 4, **lora}})
    assert answer.status_code == 200, answer.text
    return retrieved(http, answer.json()["request_id"])["model_id"]


def retrieved(http, request: str):
    """The answer of a request, in JSON."""
    deadline = time.monotonic() + PATIENCE_S
    while (answer := http.post("/retrieve_future", json={"request_id": request})).status_code == 408:
        assert time.monotonic() < deadline
    assert answer.status_code == 200, answer.text
    return answer.json()


def packed(model: str, seq: int, data: list[types.Datum], loss_fn: str = "cross_entropy") -> bytes:
    """The bytes of ``forward_backward``."""
    form = types.ForwardBackwardInput(data=data, loss_fn=loss_fn)
    request = types.ForwardBackwardRequest(forward_backward_input=form, model_id=model, seq_id=seq)
    return forward_backward_request_to_proto(request).SerializeToString()


def sent(http, model: str, seq: int, data: list[types.Datum], **headers):
    """``forward_backward`` by hand."""
    return http.post(
        "/forward_backward", content=packed(model, seq, data), headers={"Content-Type": PROTOBUF, **headers}
    )


def in_protobuf(http, request: str):
    """The answer of a request to a client that reads protobuf."""
    return http.post("/retrieve_future", json={"request_id": request}, headers={"Accept": PROTOBUF})
