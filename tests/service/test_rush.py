"""Many large bodies at once: all are read, each in its time, and little of them is here together."""

import asyncio
import gc
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import httpx
import numpy as np
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse

from fettle.calls import Forward, OptimStep, call_tree
from fettle.config import AdamW, CausalLM
from fettle.frames import plain
from fettle.service import limits
from fettle.service.intake import Intake
from fettle.service.wire import made_of
from fettle.types import Datum
from tests.service.served import PATIENCE_S, serving

KIB = 1024
ROOM = 400 * KIB
HEADERS = {"Content-Type": "application/json"}


@pytest.fixture
def narrow(tmp_path, tiny_model, monkeypatch):
    """A service that reads little at a time."""
    monkeypatch.setattr(limits, "Intake", partial(Intake, ROOM))
    with serving(tmp_path / "state", tiny_model, request_timeout_s=20.0) as found:
        yield found


def large(sequences: int = 64):
    """A call of many numbers, as people and their programs write it: about 180 KiB."""
    rng = np.random.default_rng(0)
    data = [
        Datum(
            rng.integers(5, 100, 48).astype(np.int32),
            np.array([0.0] + [1.0] * 47, np.float32),
            {"some": rng.standard_normal(48).astype(np.float32), "more": rng.standard_normal(48).astype(np.float32)},
        )
        for _ in range(sequences)
    ]
    return plain(call_tree(Forward(data, CausalLM())))


async def test_what_waits_to_be_parsed_is_bounded_and_waiting_is_not_taken_for_slowness(monkeypatch):
    monkeypatch.setattr(limits, "Intake", partial(Intake, ROOM))
    here, most, go_on = 0, 0, threading.Event()

    def parsed(body: bytes) -> int:
        nonlocal here, most
        here += 1
        most = max(most, here)
        go_on.wait(PATIENCE_S)
        here -= 1
        return len(body)

    async def app(scope, receive, send):
        await JSONResponse(await made_of(Request(scope, receive), parsed))(scope, receive, send)

    limited = limits.Limits(app, max_body_mib=1, timeout_s=0.3)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(limited), base_url="http://a") as http:
        pieces = [b"1" * 50 * KIB] * 4

        async def sent():
            async def body():
                for piece in pieces:
                    yield piece

            return await http.post("/v1/runs/r/operations", content=body(), headers=HEADERS)

        sending = asyncio.gather(*(sent() for _ in range(8)))
        await asyncio.sleep(0.6)  # which is longer than a body may take
        go_on.set()
        answers = await sending
    assert [answer.json() for answer in answers] == [200 * KIB] * 8
    assert most == ROOM // (200 * KIB)


def test_room_is_given_back_and_what_was_parsed_is_let_go_before_it_is_carried_out(narrow):
    with narrow.client() as client, ThreadPoolExecutor(8) as pool:
        run = client.new_run(lora={"rank": 2})
        call = large()

        def sent(seq: int) -> httpx.Response:
            return client.post(f"/v1/runs/{run}/operations?wait=30", json=numbered(seq, call))

        with narrow.held():
            before = lists_of_numbers()
            waiting = [pool.submit(sent, seq) for seq in range(8)]
            until(lambda: client.said("GET", f"/v1/runs/{run}")["next_seq"] == 8)
            until(lambda: lists_of_numbers() <= before)
            assert not any(one.done() for one in waiting)
        told = [one.result().json() for one in waiting]
    assert len({one["result"]["loss"] for one in told}) == 1


def test_who_stops_in_the_middle_of_a_body_keeps_nobody_out(narrow):
    host, port = narrow.url.removeprefix("http://").split(":")
    head = f"POST /v1/runs/r/operations HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {narrow.key}\r\n"
    head += "Content-Type: application/json\r\nContent-Length: 900000\r\n\r\n"
    with socket.create_connection((host, int(port))) as dribbling, narrow.client() as client:
        dribbling.sendall(head.encode() + b" " * 100 * KIB)
        run = client.new_run(lora={"rank": 2})
        for seq in range(4):
            client.said("POST", f"/v1/runs/{run}/operations", {"incarnation": 0, "seq": seq, "call": large()})
        assert client.said("GET", f"/v1/runs/{run}")["next_seq"] == 4


def test_a_step_that_is_sent_once_a_large_batch_is_acknowledged_comes_after_it(narrow):
    with narrow.client() as client:
        run = client.new_run(lora={"rank": 2})
        data = large()["data"]
        step = call_tree(OptimStep(AdamW()))["optimizer"]
        ids = []
        for _ in range(3):
            said = {"data": data, "loss": {"type": "causal_lm"}}
            ids.append(client.said("POST", f"/v1/runs/{run}/forward_backward", said)["id"])
            ids.append(client.said("POST", f"/v1/runs/{run}/optim_step", {"optimizer": step})["id"])
        assert ids == [f"{run}.0.{seq}" for seq in range(6)]
        losses = [client.result(id)["loss"] for id in ids[::2]]
    assert len(set(losses)) == 3


def test_large_answers_are_those_of_small_ones(narrow):
    with narrow.client() as client:
        run = client.new_run(lora={"rank": 2})
        call = large(512)
        whole = client.result(client.said("POST", f"/v1/runs/{run}/operations", numbered(0, call))["id"])
        part = plain(large(1))
        alone = client.result(client.said("POST", f"/v1/runs/{run}/operations", numbered(1, part))["id"])
    assert whole["num_tokens"] == 512 * 47
    assert np.allclose(whole["logprobs"]["values"][:48], alone["logprobs"]["values"], atol=1e-5)


def numbered(seq: int, call):
    return {"incarnation": 0, "seq": seq, "call": call}


def lists_of_numbers() -> int:
    """How many long ones there are: what JSON is parsed to, and an array is not."""
    found = (each for each in gc.get_objects() if type(each) is list and len(each) > 1000)
    return sum(type(each[-1]) is float for each in found)


def until(holds) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)
