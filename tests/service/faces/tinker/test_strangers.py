"""What one tenant does to another by the Tinker protocol: nothing."""

import pytest

from fettle.errors import BusyError
from fettle.service.faces.tinker import downloads, samples
from tests.service.faces.tinker.programs import http_of, made, retrieved, session


@pytest.fixture
def stranger(shared):
    with http_of(shared, shared.other_key) as http:
        yield http


def sampler_of(http, number: int = 0) -> str:
    body = {"session_id": session(http), "sampling_session_seq_id": number, "base_model": "tiny"}
    return http.post("/create_sampling_session", json=body).json()["sampling_session_id"]


def asked(http, sampler: str, seq: int, **more) -> str:
    tokens = {"chunks": [{"type": "encoded_text", "tokens": [65, 66, 67]}]}
    body = {"sampling_session_id": sampler, "seq_id": seq, "prompt": tokens, "sampling_params": {"max_tokens": 2}}
    answer = http.post("/asample", json={**body, **more})
    assert answer.status_code == 200, answer.text
    return answer.json()["request_id"]


def polled(http, sampler: str, clone: int = 0, timeout: float = 0.0, **more) -> list[str]:
    target = {"sampling_session_id": sampler, "cloned_sampler_id": clone}
    answer = http.post("/retrieve_futures", json={"target": target, "timeout": timeout, **more})
    assert answer.status_code == 200, answer.text
    return [each["request_id"] for each in answer.json()["completions"]]


def test_a_request_of_anothers_is_not_let_go(http, stranger):
    sampler = sampler_of(http)
    request = asked(http, sampler, 0, prompt_logprobs=True)
    assert polled(http, sampler, timeout=20.0) == [request]
    assert polled(stranger, sampler, retrieved_request_ids=[request]) == []
    assert retrieved(http, request)["prompt_logprobs"]


def test_polls_for_what_is_not_there_push_nothing_out(http, stranger, monkeypatch):
    monkeypatch.setattr(samples, "CHANNELS", 4)
    sampler = sampler_of(http)
    request = asked(http, sampler, 0)
    assert polled(http, sampler, timeout=20.0) == [request]
    own = sampler_of(stranger)
    for clone in range(8):
        assert polled(stranger, f"nosuch{clone}") == []
        assert polled(stranger, sampler, clone) == []
        assert polled(stranger, own, clone) == []
        assert polled(http, sampler, clone + 1) == []
    assert polled(http, sampler) == [request]


async def test_clones_that_all_have_something_to_tell_are_kept(monkeypatch):
    monkeypatch.setattr(samples, "CHANNELS", 2)
    kept = samples.Samples()
    told = [kept.new_channel("one", "sampler", clone) for clone in (1, 2)]
    for channel in told:
        channel.watch("request")
        assert (await channel.since(0, 20.0))[0]
    with pytest.raises(BusyError):
        kept.new_channel("one", "sampler", 3)
    assert kept.channel("one", "sampler", 1) is told[0]
    kept.new_channel("two", "sampler", 3)


@pytest.mark.parametrize("clone", [-1, 2**32, 10**30])
def test_a_clone_that_cannot_be_is_refused(http, clone):
    body = {"target": {"sampling_session_id": sampler_of(http), "cloned_sampler_id": clone}, "timeout": 0}
    assert http.post("/retrieve_futures", json=body).status_code == 422


def test_a_download_ends_with_its_key(shared, http):
    model = made(http)
    retrieved(http, http.post("/save_weights", json={"model_id": model, "path": "one"}).json()["request_id"])
    key, secret = shared.call(shared.service.keys.create("one"))
    address = f"/training_runs/{model}/checkpoints/weights/one/external_weights_urls"
    with http_of(shared, secret) as leaver:
        url = leaver.get(address).json()["urls"]["manifest.json"]
    assert http.get(url, headers={"X-API-Key": ""}).status_code == 200
    shared.call(shared.service.keys.revoke(key.id))
    assert http.get(url, headers={"X-API-Key": ""}).status_code == 401


def test_a_tenant_has_so_many_downloads_at_a_time(http, monkeypatch):
    monkeypatch.setattr(downloads, "MOST_TICKETS", 2)
    model = made(http)
    retrieved(http, http.post("/save_weights", json={"model_id": model, "path": "one"}).json()["request_id"])
    address = f"/training_runs/{model}/checkpoints/weights/one/external_weights_urls"
    urls = [http.get(address).json()["urls"]["manifest.json"] for _ in range(3)]
    assert [http.get(url).status_code for url in urls] == [404, 200, 200]
