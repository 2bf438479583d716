"""Bodies that are compressed on their way: to the service they say what the same bodies say as they are."""

import json

import numpy as np
import pytest

from fettle.calls import ForwardBackward, call_tree
from fettle.client.transport import COMPRESSED_FROM, Transport, outcome
from fettle.config import CausalLM
from fettle.frames import packed, plain, result_of
from fettle.types import datum


@pytest.fixture(scope="module")
def call():
    rng = np.random.default_rng(1)
    data = [datum(rng.integers(5, 100, 120).tolist(), [0.0] + [1.0] * 119) for _ in range(32)]
    return call_tree(ForwardBackward(data, CausalLM()))


async def test_a_number_is_the_same_operation_compressed_or_not_and_comes_to_the_same(served, call):
    transport = Transport(served.url, served.key)
    with served.client() as client:
        run = client.new_run(lora={"rank": 2})
        path, bodies = f"/v1/runs/{run}/operations", [{"incarnation": 0, "seq": seq, "call": call} for seq in (0, 1)]
        assert COMPRESSED_FROM < len(packed(bodies[0])) < len(json.dumps(plain(bodies[0])))
        compressed = (await transport.post(path, bodies[0]))["id"]
        assert client.framed("POST", path, bodies[0])["id"] == compressed
        plainly = client.framed("POST", path, bodies[1])["id"]
        ours, theirs = [await outcome(transport, id) for id in (compressed, plainly)]
        listed = client.said("POST", path, {**plain(bodies[0]), "seq": 2})["id"]
        by_lists = result_of(client.framed("GET", f"/v1/futures/{listed}?wait=30")["result"])
    await transport.close()
    assert ours.loss == theirs.loss == by_lists.loss
    for one, two, three in zip(ours.logprobs, theirs.logprobs, by_lists.logprobs, strict=True):
        assert one.tobytes() == two.tobytes() == three.tobytes()
