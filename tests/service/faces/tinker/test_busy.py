"""A service with too much to do, as the public SDK meets it."""

import time
from contextlib import AsyncExitStack

import pytest
from tinker import types

from fettle.config import Scheduling
from tests.service.faces.tinker.programs import http_of, prompt, sdk_of, session
from tests.service.served import PATIENCE_S, Served, serving


class Statuses:
    """What requests for samples were answered."""

    def __init__(self) -> None:
        self.told: list[int] = []

    def layer(self, app):
        async def listened(scope, receive, send):
            async def heard(message):
                if message["type"] == "http.response.start" and scope["path"].endswith("/asample"):
                    self.told.append(message["status"])
                await send(message)

            await app(scope, receive, heard)

        return listened


@pytest.fixture
def statuses() -> Statuses:
    return Statuses()


@pytest.fixture
def server(tmp_path, tiny_model, statuses):
    """A service that reads one prompt at a time."""
    scheduling = Scheduling(waiting_draws=1, gather="free")
    with serving(tmp_path, tiny_model, scheduling=scheduling, layers=lambda _: [statuses.layer]) as found:
        yield found


async def reading(server: Served) -> AsyncExitStack:
    """Somebody's reading that goes on until the stack is closed."""
    held = AsyncExitStack()
    live = await server.service.broker.sampler(server.model)
    await held.enter_async_context(server.service.readings.within("one", live, [[1, 2, 3]]))
    return held


def test_a_prompt_that_cannot_be_read_now_is_read_when_the_sdk_asks_again(server, statuses):
    with sdk_of(server) as sdk:
        sampler = sdk.create_sampling_client(base_model="tiny").result()
        held = server.call(reading(server))
        sampled = sampler.sample(prompt(), 1, types.SamplingParams(max_tokens=2), include_prompt_logprobs=True)
        deadline = time.monotonic() + PATIENCE_S
        while 429 not in statuses.told:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        server.call(held.aclose())
        answer = sampled.result(timeout=PATIENCE_S)
    assert len(answer.prompt_logprobs) == 4
    assert len(answer.sequences) == 1
    assert statuses.told[-1] == 200


def test_nothing_is_drawn_of_what_was_turned_away_and_it_is_said_when_to_come_again(server):
    with http_of(server) as http:
        body = {"session_id": session(http), "sampling_session_seq_id": 0, "base_model": "tiny"}
        sampler = http.post("/create_sampling_session", json=body).json()["sampling_session_id"]
        chunks = {"chunks": [{"type": "encoded_text", "tokens": [65, 66]}]}
        ask = {"sampling_session_id": sampler, "seq_id": 1, "prompt": chunks, "sampling_params": {"max_tokens": 2}}
        held = server.call(reading(server))
        refused = http.post("/asample", json={**ask, "prompt_logprobs": True})
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "busy")
        assert float(refused.headers["retry-after"]) > 0
        assert http.post("/retrieve_future", json={"request_id": f"{sampler}:1~r"}).status_code == 410
        assert http.post("/asample", json={**ask, "seq_id": 2}).status_code == 200  # of which no prompt is read
        server.call(held.aclose())
        deadline = time.monotonic() + PATIENCE_S
        while (again := http.post("/asample", json={**ask, "prompt_logprobs": True})).status_code == 429:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert again.status_code == 200
