"""Samplers over HTTP: drawn from, listened to, and read."""

import json
import time

import httpx
import numpy as np
import pytest

from fettle.frames import result_of
from tests.service.served import serving

PROMPT = [5, 9, 41]
GREEDY = {"max_tokens": 12, "temperature": 0, "end_tokens": False}
BATCH = {"data": [{"tokens": [5, 9, 41, 7, 11]}], "loss": {"type": "causal_lm"}}


@pytest.fixture
def sampler(client):
    return client.said("POST", "/v1/samplers", {"model": "tiny"})["id"]


def drawn(client, sampler, **request):
    said = {"requests": [{"prompt": PROMPT, "params": GREEDY, **request}]}
    return client.said("POST", f"/v1/samplers/{sampler}/sample?wait=30", said)["result"]


def heard(response: httpx.Response) -> list[dict]:
    lines = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def test_texts_and_tokens_are_prompts_and_people_are_answered_in_text(client, sampler):
    text = client.said("POST", "/v1/detokenize", {"tokens": PROMPT})["text"]
    tokens = client.said("POST", "/v1/tokenize", {"text": text})["tokens"]
    by_text, by_tokens = (drawn(client, sampler, prompt=prompt) for prompt in (text, tokens))
    assert by_text["token_ids"] == by_tokens["token_ids"]
    assert by_text["outputs"] == [client.said("POST", "/v1/detokenize", {"tokens": by_text["token_ids"][0]})["text"]]


def test_the_same_key_is_drawn_once(client, sampler):
    said = {"key": "mine", "requests": [{"prompt": PROMPT, "params": {"max_tokens": 4}}]}
    first, again = (client.said("POST", f"/v1/samplers/{sampler}/sample", said)["id"] for _ in range(2))
    assert first == again
    other = {**said, "requests": [{"prompt": [5], "params": {"max_tokens": 4}}]}
    assert client.said("POST", f"/v1/samplers/{sampler}/sample", other, status=409)["error"]["code"] == "sequence"


def test_a_stream_put_together_is_what_is_answered_at_once(client, sampler):
    whole = drawn(client, sampler)
    said = {"prompt": PROMPT, "params": GREEDY}
    with client.stream("POST", f"/v1/samplers/{sampler}/stream", json=said) as response:
        events = heard(response)
    assert "".join(event["token"] for event in events) == whole["outputs"][0]
    assert [event["token_id"] for event in events[:-1]] == whole["token_ids"][0]
    assert events[-1]["is_finished"]
    assert events[-1]["stop_reason"] == "length"


def test_whoever_stops_listening_stops_the_drawing(shared, client, sampler):
    said = {"prompt": PROMPT, "n": 64, "params": {"max_tokens": 60, "end_tokens": False}}
    with client.stream("POST", f"/v1/samplers/{sampler}/stream", json=said) as response:
        next(response.iter_lines())
    deadline = time.monotonic() + 20
    while shared.service.counts()["draws_waiting"] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not shared.service.counts()["draws_waiting"]


def test_a_runs_sampler_draws_from_its_weights_as_they_were(client):
    run = client.new_run(lora={"rank": 4})
    before = client.said("POST", f"/v1/runs/{run}/sampler?wait=30")
    sequence = {"sequences": [[5, 9, 41, 7, 11]]}
    read = client.said("POST", f"/v1/samplers/{before['id']}/logprobs", sequence)
    for _ in range(3):
        client.said("POST", f"/v1/runs/{run}/forward_backward", BATCH)
        client.said("POST", f"/v1/runs/{run}/optim_step", {"learning_rate": 0.05})
    after = client.said("POST", "/v1/samplers", {"run_id": run})
    assert after["version"] == 3
    assert client.said("POST", f"/v1/samplers/{before['id']}/logprobs", sequence) == read
    newer = client.said("POST", f"/v1/samplers/{after['id']}/logprobs", sequence)["logprobs"][0]
    assert sum(newer[1:]) > sum(read["logprobs"][0][1:])


def test_a_run_is_sampled_as_documented(client):
    run = client.new_run(lora={"rank": 4})
    said = {"prompts": ["one two", PROMPT], "n": 2, "max_tokens": 5, "temperature": 0, "params": {"end_tokens": False}}
    result = client.said("POST", f"/v1/runs/{run}/sample?wait=30", said)["result"]
    assert len(result["outputs"]) == 4
    assert [len(tokens) for tokens in result["token_ids"]] == [5, 5, 5, 5]
    assert result["outputs"][0] == result["outputs"][1]


def test_sequences_are_read_scored_and_embedded_by_the_weights(client, sampler):
    sequences = {"sequences": [[5, 9, 41], [7, 7]]}
    logprobs = client.said("POST", f"/v1/samplers/{sampler}/logprobs", sequences)["logprobs"]
    assert [row[0] for row in logprobs] == [None, None]
    asked = {"requests": [{"tokens": [5, 9, 41], "top": 2, "targets": [[-1], [9], [41]]}]}
    [reading] = client.framed("POST", f"/v1/samplers/{sampler}/read", asked)["readings"]
    found = result_of(reading)
    assert found.logprobs[1:] == pytest.approx(logprobs[0][1:], abs=1e-5)
    assert found.target_logprobs[1:, 0] == pytest.approx(logprobs[0][1:], abs=1e-5)
    embedded = client.said("POST", f"/v1/samplers/{sampler}/embed", {**sequences, "pooling": "last_token"})
    assert np.asarray(embedded["embeddings"]).shape == (2, 32)
    refused = client.said("POST", f"/v1/samplers/{sampler}/score", sequences, status=400)
    assert "head" in refused["detail"]


def test_a_reward_models_score_is_told(client):
    run = client.new_run(lora={"rank": 4}, head="reward")
    sampler = client.said("POST", "/v1/samplers", {"run_id": run})["id"]
    scores = client.said("POST", f"/v1/samplers/{sampler}/score", {"sequences": [[5, 9], [7, 7, 8]]})["scores"]
    assert len(scores) == 2


@pytest.mark.parametrize(
    ("prompt", "said"),
    [([], "empty"), ([10**6], "there is no token 1000000"), ([5] * 65, "65 tokens"), ("", "empty")],
)
def test_a_prompt_that_cannot_be_is_refused(client, sampler, prompt, said):
    body = {"requests": [{"prompt": prompt}]}
    assert said in client.said("POST", f"/v1/samplers/{sampler}/sample", body, status=400)["detail"]


@pytest.mark.parametrize(
    "body", [{}, {"model": "tiny", "checkpoint": "a/weights/b"}, {"model": "none"}, {"pin": "a.0.0"}]
)
def test_a_sampler_of_nothing_is_refused(client, body):
    assert client.request("POST", "/v1/samplers", json=body).status_code in (400, 404)


def test_a_sampler_is_its_tenants_and_ends_when_it_is_let_go(shared, client, sampler):
    with shared.client(shared.other_key) as other:
        foreign = other.said("GET", f"/v1/samplers/{sampler}", status=404)["detail"]
        assert foreign.replace(sampler, "") == other.said("GET", "/v1/samplers/none", status=404)["detail"].replace(
            "none", ""
        )
        other.said("DELETE", f"/v1/samplers/{sampler}", status=404)
    client.said("DELETE", f"/v1/samplers/{sampler}")
    client.said("GET", f"/v1/samplers/{sampler}", status=404)


def test_texts_become_vectors_for_openai_clients_as_well(client):
    ours = client.said("POST", "/v1/embeddings", {"texts": ["one two", "three"]})
    theirs = client.said("POST", "/v1/embeddings", {"input": ["one two", "three"], "model": "tiny"})
    assert ours["dimensions"] == 32
    assert [row["embedding"] for row in theirs["data"]] == ours["embeddings"]


def test_of_many_samplers_the_least_recently_used_is_let_go(tmp_path, tiny_model):
    with serving(tmp_path / "state", tiny_model, max_samplers=2) as served, served.client() as client:
        run = client.new_run(lora={"rank": 2})
        pins = [client.said("POST", f"/v1/runs/{run}/sampler?wait=30")["id"] for _ in range(2)]
        client.said("GET", f"/v1/samplers/{pins[0]}")
        pins.append(client.said("POST", f"/v1/runs/{run}/sampler?wait=30")["id"])
        client.said("GET", f"/v1/samplers/{pins[2]}")
        client.said("GET", f"/v1/samplers/{pins[1]}", status=404)
        drawn(client, pins[0])
