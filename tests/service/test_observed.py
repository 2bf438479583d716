"""What operators see: health, numbers, and a log that says who did what and never what they said."""

import io
import json
import logging
import sys

import pytest

from fettle.service.logs import JSONLines, log_to
from fettle.service.metrics import MOST_TENANTS, Metrics
from fettle.service.observed import Observed

CANARY = "a-secret-that-nobody-may-log"


@pytest.fixture
def log():
    stream = io.StringIO()
    names = ("fettle", "uvicorn.error")
    before = {name: (logging.getLogger(name).handlers, logging.getLogger(name).propagate) for name in names}
    log_to(stream)
    yield stream
    for name, (handlers, propagate) in before.items():
        logging.getLogger(name).handlers = handlers
        logging.getLogger(name).propagate = propagate


def lines(stream: io.StringIO) -> list[dict]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def numbers(shared) -> dict[str, float]:
    with shared.client(shared.admin_key) as admin:
        text = admin.get("/metrics").text
    rows = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in rows}


def test_tenants_that_are_gone_are_no_longer_told_of():
    metrics = Metrics(dict)
    for number in range(MOST_TENANTS + 3):
        metrics.computed("faithful", "draw", seconds=1.0, tokens=1)
        metrics.computed(f"tenant-{number}", "draw", seconds=1.0, tokens=1)
        metrics.computed(f"tenant-{number}", "read", seconds=1.0, tokens=1)
    told = metrics.text().decode()
    assert f'fettle_tokens_total{{kind="draw",tenant="faithful"}} {MOST_TENANTS + 3}.0' in told
    assert 'tenant="tenant-3"' not in told
    assert told.count("fettle_compute_seconds_total{") == 1 + 2 * (MOST_TENANTS - 1)


def test_it_is_ready_once_something_was_generated(shared, client):
    assert client.said("GET", "/healthz") == {"status": "ok"}
    while client.get("/readyz").status_code != 200:
        pass
    assert numbers(shared)["fettle_ready"] == 1


def test_numbers_count_requests_by_route_and_work_by_tenant(shared, client):
    run = client.new_run(lora={"rank": 2})
    before = numbers(shared)
    batch = {"data": [{"tokens": [5, 9, 41, 7]}], "loss": {"type": "causal_lm"}}
    client.said("POST", f"/v1/runs/{run}/forward_backward?wait=30", batch)
    after = numbers(shared)

    def grown(name: str) -> float:
        return after[name] - before.get(name, 0)

    assert grown('fettle_tokens_total{kind="forward_backward",tenant="one"}') == 4
    assert grown('fettle_compute_seconds_total{kind="forward_backward",tenant="one"}') > 0
    route = "/v1/runs/{run_id}/forward_backward"
    assert grown(f'fettle_request_seconds_count{{method="POST",route="{route}",status="200"}}') == 1
    assert grown('fettle_operation_seconds_count{kind="forward_backward",outcome="done"}') == 1
    assert {"fettle_operations_waiting", "fettle_draws_waiting", "fettle_policies", "fettle_samplers"} <= after.keys()
    assert any(name.startswith("fettle_journal") for name in after)
    assert not any(run in name for name in after)


def test_a_request_is_a_line_with_its_tenant_and_nothing_that_was_said(log, shared, client):
    client.said("POST", "/v1/tokenize", {"text": CANARY})
    client.request("POST", "/v1/tokenize", json={"text": [CANARY, 3]}, headers={"X-Request-Id": "mine"})
    client.request("GET", f"/v1/runs/{CANARY}")
    client.request("GET", f"/{CANARY}")
    shared.call(shared.service.audit.flush())
    [refused] = [line for line in lines(log) if line.get("request") == "mine"]
    assert refused["tenant"] == "one"
    assert (refused["method"], refused["route"], refused["status"]) == ("POST", "/v1/tokenize", 400)
    assert refused["milliseconds"] > 0
    assert CANARY not in log.getvalue()
    assert shared.key not in log.getvalue()


def test_an_error_is_told_by_where_it_was_raised_and_not_by_what_it_quotes():
    try:
        raise ValueError(CANARY)
    except ValueError:
        record = logging.LogRecord("fettle", logging.ERROR, __file__, 1, "failed", None, sys.exc_info())
    line = JSONLines().format(record)
    assert CANARY not in line
    assert json.loads(line)["error"] == "ValueError"
    assert "test_observed.py" in json.loads(line)["raised"][0]


async def test_what_nobody_foresaw_is_answered_by_its_id_and_goes_on_into_the_log():
    class Standing:
        metrics = Metrics(dict)
        stopping = False

    async def broken(scope, receive, send):
        raise ValueError(CANARY)

    sent = []

    async def send(message):
        sent.append(message)

    with pytest.raises(ValueError, match=CANARY):
        await Observed(broken, service=Standing())({"type": "http", "method": "GET", "headers": []}, None, send)
    start, body = sent
    assert start["status"] == 500
    assert CANARY.encode() not in body["body"]
    assert json.loads(body["body"])["error"]["code"] == "internal"
    assert b"x-request-id" in dict(start["headers"])
    assert dict(start["headers"])[b"connection"] == b"close", "the server ends it, which a client should know"
