"""Sessions: asked for twice they are one, unheard of they end, and their end gives memory back and loses nothing."""

import time

import pytest

from fettle.config import LoRA, PolicySpec
from fettle.errors import NotFoundError
from fettle.service.callers import Caller
from tests.service.served import serving

ONE = Caller("one", "key", admin=False)
TWO = Caller("two", "key", admin=False)
BATCH = {"data": [{"tokens": [5, 9, 41, 7]}], "loss": {"type": "causal_lm"}}


@pytest.fixture
def short(tmp_path, tiny_model):
    with serving(tmp_path / "state", tiny_model, session_timeout_s=1.5) as found:
        yield found


def begun(served, session: str) -> str:
    async def begin() -> str:
        spec = PolicySpec(model="tiny", lora=LoRA(rank=2))
        promise = await served.service.create_run(ONE, spec, session=session)
        await promise.result()
        return promise.policy

    return served.call(begin())


def test_the_same_key_of_a_tenant_is_the_same_session(shared):
    create = shared.service.create_session
    ids = [shared.call(create(caller, {}, (), "mine")) for caller in (ONE, ONE, TWO)]
    assert ids[0] == ids[1] != ids[2]


def test_a_session_is_its_tenants(shared):
    session = shared.call(shared.service.create_session(ONE))
    for foreign in (session, "session-none"):
        with pytest.raises(NotFoundError, match="there is no session"):
            shared.service.heartbeat(TWO, foreign)


def test_a_session_that_is_not_heard_of_ends_and_its_runs_rest_until_they_are_worked_on(short):
    session = short.call(short.service.create_session(ONE))
    run = begun(short, session)
    with short.client() as client:
        until = time.monotonic() + 3
        while time.monotonic() < until:  # twice the time that it may be silent
            short.service.heartbeat(ONE, session)
            time.sleep(0.2)
        assert not client.said("GET", f"/v1/runs/{run}")["parked"]
        deadline = time.monotonic() + 20
        while not client.said("GET", f"/v1/runs/{run}")["parked"] and time.monotonic() < deadline:
            time.sleep(0.1)
        with pytest.raises(NotFoundError):
            short.service.heartbeat(ONE, session)
        told = client.said("POST", f"/v1/runs/{run}/forward_backward?wait=30", BATCH)
        assert told["status"] == "completed"
        assert not client.said("GET", f"/v1/runs/{run}")["parked"]
