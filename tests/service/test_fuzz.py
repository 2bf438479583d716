"""Bad input made at random, a little of it: ``python -m benchmarks.fuzz --requests 20000`` makes more."""

from pathlib import Path
from random import Random

import pytest

from benchmarks import fuzz
from benchmarks.mutations import written
from benchmarks.requests import BODIES, bodies, operations, sound, world
from benchmarks.served import Tenant
from tests.service.served import NAME, Served


@pytest.fixture
def tenant(shared: Served, tmp_path: Path) -> Tenant:
    return Tenant(shared.url, shared.key, tmp_path, model=NAME)


def test_every_operation_that_has_a_body_has_a_sound_one(tenant):
    listed = operations(tenant.asks("GET", "/openapi.json"))
    assert set(BODIES) <= {f"{method} {path}" for method, path, _ in listed}
    bodyless = {"attach", "pause", "resume", "complete", "acknowledge", "publish", "keys", "payments"}
    without = {
        path.rpartition("/")[2]
        for method, path, told in listed
        if method in ("POST", "PUT") and not bodies(method, path, told)
    }
    assert without <= bodyless


def test_what_is_sound_is_taken(tenant):
    listed = operations(tenant.asks("GET", "/openapi.json"))
    there, rng, refused = world(tenant), Random("sound"), []
    for method, path, told in listed:
        for body in bodies(method, path, told):
            one = sound(there, [(method, path, {**told, "parameters": []})], rng, body)
            answer = tenant.tries(
                method, one.path.format_map(one.names), content=written(one.body), headers={"Content-Type": fuzz.JSON}
            )
            there.taken += path.endswith("/operations") and answer.is_success
            if not answer.is_success:
                refused.append((method, path, answer.status_code, answer.text[:200]))
    there.close()
    assert [each for each in refused if not each[1].endswith("/score")] == []  # which wants a reward head


def test_requests_of_every_operation_made_wrong_are_refused_or_taken(tenant):
    found = fuzz.from_operations([tenant], range(250), seed=7)
    assert found.faults == []
    for face in ("native", "openai", "tinker", "tinker, protobuf"):
        told = fuzz.by_class(found.answers[face])
        assert told["2xx"]
        assert told["4xx"]


def test_a_request_of_a_number_is_always_the_same(tenant):
    listed, there = operations(tenant.asks("GET", "/openapi.json")), world(tenant)
    made = [[fuzz.request(there, listed, Random(f"fuzz/0/{number}")) for number in range(50)] for _ in range(2)]
    there.close()
    assert made[0] == made[1]
    assert len({one.content for one in made[0]}) > 25


def test_requests_made_of_the_openapi_document_never_meet_what_nobody_foresaw(tenant, tmp_path):
    found = fuzz.from_document(tenant, 100, tmp_path, seed=0)
    assert found.faults == []
    assert found.answers["from the OpenAPI document"][200]
    assert found.asked >= 100


def test_a_failure_that_schemathesis_finds_is_a_fault(tenant, tmp_path, monkeypatch):
    monkeypatch.setattr(tenant, "key", "")  # curl would say the same: its header has no value
    monkeypatch.setattr(tenant, "url", tenant.url + "/nowhere")
    (fault,) = fuzz.from_document(tenant, 10, tmp_path, seed=0).faults
    assert "schemathesis ended with" in fault
