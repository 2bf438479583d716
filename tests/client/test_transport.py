"""Requests: repeated where nobody answered, and never where somebody did."""

import asyncio
import json
import random
import socket
import time

import numpy as np
import pytest

from fettle.calls import ForwardBackward, call_digest, call_of, call_tree
from fettle.client.transport import Transport
from fettle.config import PPO
from fettle.errors import (
    BusyError,
    ConfigError,
    DataError,
    EngineError,
    FettleError,
    NotFoundError,
    StorageError,
    TooLargeError,
    UnreachableError,
    by_code,
)
from fettle.frames import plain
from fettle.types import Datum, datum

from .raw import CUT, DROPPED

ALL = sorted({cls.code for cls in FettleError.__subclasses__()})


async def test_frames_go_both_ways_over_one_connection(raw):
    raw.says = lambda asked: (200, {"values": asked.tree["values"] * 2})
    transport = Transport(raw.url, "a-key")
    for _ in range(3):
        answer = await transport.post("/v1/x", {"values": np.arange(3, dtype=np.float32)})
        assert answer["values"].dtype == np.float32
        assert answer["values"].tolist() == [0, 2, 4]
    assert {asked.connection for asked in raw.asked} == {0}
    assert {asked.headers["authorization"] for asked in raw.asked} == {"Bearer a-key"}


async def test_a_batch_of_a_policy_gradient_is_a_tenth_of_its_json_on_the_wire(raw):
    tree = call_tree(ForwardBackward(policy_gradient_batch(), PPO()))
    said = json.dumps(plain(tree), separators=(",", ":"))
    await Transport(raw.url).post("/v1/x", tree)
    [asked] = raw.asked
    assert 10 * asked.nbytes <= len(said)
    assert call_digest(call_of(asked.tree)) == call_digest(call_of(tree))


async def test_what_is_sent_again_is_the_same_compressed_body(raw):
    answers = iter([DROPPED, (503, b"", {}), (200, {})])
    raw.says = lambda asked: next(answers)
    values = np.arange(10_000, dtype=np.float32)
    await Transport(raw.url).post("/v1/x", {"values": values})
    assert {asked.headers["content-encoding"] for asked in raw.asked} == {"deflate"}
    assert [np.array_equal(asked.tree["values"], values) for asked in raw.asked] == [True] * 3


async def test_small_bodies_are_sent_as_they_are(raw):
    await Transport(raw.url).post("/v1/x", {"values": np.zeros(16, np.float32)})
    [asked] = raw.asked
    assert "content-encoding" not in asked.headers


def policy_gradient_batch() -> list[Datum]:
    """128 sequences."""
    rng, data = random.Random("batch"), []
    for index in range(128):
        mask = [0.0] * rng.randint(16, 128) + [1.0] * rng.randint(8, 64)
        credit = rng.gauss(0, 1)
        data.append(
            datum(
                [rng.randrange(5, 500) for _ in mask],
                mask,
                group=str(index // 8),
                advantages=[credit * each for each in mask],
                weights=[each / 4096 for each in mask],
                sampling_logprobs=[-rng.expovariate(1.0) * each for each in mask],
            )
        )
    return data


async def test_json_is_understood_too(raw):
    raw.says = lambda asked: (200, b'{"values": [1, null]}', {"Content-Type": "application/json"})
    assert await Transport(raw.url).get("/v1/x") == {"values": [1, None]}


@pytest.mark.parametrize("fault", [DROPPED, (CUT, 200, {"half": [1] * 50}), (502, b"<html>", {}), (503, b"", {})])
async def test_a_request_that_got_no_answer_is_sent_again_as_it_was(raw, fault):
    answers = iter([fault, fault, (200, {"third": True})])
    raw.says = lambda asked: next(answers)
    assert await Transport(raw.url).post("/v1/x", {"seq": 7}) == {"third": True}
    assert [asked.tree for asked in raw.asked] == [{"seq": 7}] * 3


async def test_an_answer_that_takes_longer_than_it_may_is_asked_for_again(raw, monkeypatch):
    monkeypatch.setattr("fettle.client.transport.ANSWERING", 0.2)

    async def late_at_first(asked):
        await asyncio.sleep(0 if len(raw.asked) > 1 else 5)
        return 200, {"times": len(raw.asked)}

    raw.says = late_at_first
    assert await Transport(raw.url).get("/v1/x") == {"times": 2}


@pytest.mark.parametrize("code", [code for code in ALL if code not in ("busy", "storage", "unreachable")])
async def test_errors_are_those_of_the_service_and_are_not_sent_again(raw, code):
    raw.says = lambda asked: (400, {"error": {"code": code, "message": "what to do"}, "detail": "what to do"})
    with pytest.raises(by_code(code)) as refused:
        await Transport(raw.url).post("/v1/x", {})
    assert refused.value.message == "what to do"
    assert len(raw.asked) == 1


async def test_a_busy_service_is_left_alone_for_as_long_as_it_says(raw):
    def busy_at_first(asked):
        said.append(time.monotonic())
        busy = {"error": {"code": "busy", "message": "later"}}
        return (429, busy, {"Retry-After": "1", "Retry-After-Ms": "300"}) if len(said) == 1 else (200, {})

    said: list[float] = []
    raw.says = busy_at_first
    await Transport(raw.url).post("/v1/x", {})
    assert said[1] - said[0] >= 0.3


@pytest.mark.parametrize(("code", "status", "error"), [("busy", 429, BusyError), ("storage", 503, StorageError)])
async def test_what_does_not_pass_in_time_is_told_as_it_is(raw, code, status, error):
    raw.says = lambda asked: (status, {"error": {"code": code, "message": "still"}})
    with pytest.raises(error, match="still"):
        await Transport(raw.url, patience=0.2).post("/v1/x", {})
    assert len(raw.asked) > 1


async def test_a_service_that_is_not_there_is_named_once_patience_is_at_its_end():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    with pytest.raises(UnreachableError, match=f"^{url} cannot be reached"):
        await Transport(url, patience=0.3).get("/v1/x")


@pytest.mark.parametrize(
    ("status", "error"), [(404, NotFoundError), (413, TooLargeError), (418, EngineError), (502, UnreachableError)]
)
async def test_what_others_than_the_service_say_is_understood_by_its_status(raw, status, error):
    raw.says = lambda asked: (status, b"<h1>a proxy</h1>", {"Content-Type": "text/html"})
    with pytest.raises(error, match=f"answered {status} and said <h1>a proxy</h1>"):
        await Transport(raw.url, patience=0.0).get("/v1/x")


async def test_a_page_that_is_no_answer_is_told(raw):
    raw.says = lambda asked: (200, b"<h1>a page</h1>", {"Content-Type": "text/html"})
    with pytest.raises(DataError, match="is it a service"):
        await Transport(raw.url).get("/v1/x")


@pytest.mark.parametrize("url", ["", "localhost:8700", "ftp://x", "http://"])
def test_what_is_no_address_is_refused(url):
    with pytest.raises(ConfigError, match="give one such as"):
        Transport(url)
