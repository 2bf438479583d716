"""Bodies that are nearly right: whatever is wrong with one, it is refused and nothing breaks."""

import json
import threading
from random import Random

import pytest

ODD = [
    None,
    True,
    -1,
    0,
    2**31,
    2**63,
    10**30,
    1.5,
    -0.0,
    1e308,
    "",
    "a",
    "\ud83d",
    "x" * 5000,
    [],
    [[]],
    [None],
    {},
    {"type": "ppo"},
]
ROUNDS = 8
"""Of every example."""


def places(tree, path=()):
    """Every place in a tree."""
    yield path
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield from places(value, (*path, key))


def changed(tree, path, value):
    """The tree with another value at a place."""
    if not path:
        return value
    copy = dict(tree) if isinstance(tree, dict) else list(tree)
    copy[path[0]] = changed(copy[path[0]], path[1:], value)
    return copy


def bodies(document):
    for path, methods in document["paths"].items():
        for method, told in methods.items():
            content = told.get("requestBody", {}).get("content", {}).get("application/json", {})
            for example in content.get("examples", {}).values():
                if "native" in told["tags"]:
                    yield method.upper(), path, example["value"], sorted(content["schema"]["properties"])


def test_examples_with_something_odd_in_them_are_refused_and_nothing_breaks(client):
    rng = Random("odd")
    run = client.new_run(lora={"rank": 2})
    sampler = client.said("POST", "/v1/samplers", {"model": "tiny"})["id"]
    client.said("POST", f"/v1/runs/{run}/save_state?wait=30", {"name": "one"})
    ids = {"run_id": run, "sampler_id": sampler, "kind": "weights", "name": "one"}
    for method, path, example, fields in bodies(client.said("GET", "/openapi.json")):
        for _ in range(ROUNDS):
            body = changed(example, rng.choice(list(places(example))), rng.choice(ODD))
            if isinstance(body, dict) and rng.random() < 0.4:
                body = {**body, rng.choice([*fields, "unknown"]): rng.choice(ODD)}
            response = client.request(
                method, path.format(**ids), content=json.dumps(body), headers={"Content-Type": "application/json"}
            )
            assert response.status_code < 500, f"{method} {path} {body}: {response.text}"
            if response.status_code == 202:
                answer = client.said("GET", f"/v1/futures/{response.json()['id']}?wait=30")
                unforeseen = "the engine failed" in answer.get("error", {}).get("message", "")
                assert not unforeseen, f"{method} {path} {body}: {answer}"
    assert client.said("GET", f"/v1/runs/{run}")["state"] == "active"


@pytest.mark.parametrize("id", [2**32 + 5, 2**31, -1])
def test_an_id_out_of_range_is_refused_and_never_another_token(client, id):
    run = client.new_run(lora={"rank": 2})
    good = [5, 9, 41]
    for datum in ({"tokens": [5, id, 41]}, {"tokens": good, "targets": [5, id, 41]}):
        body = {"data": [datum], "loss": {"type": "causal_lm"}}
        told = client.said("POST", f"/v1/runs/{run}/forward_backward", body, status=400)
        assert "ids are 0 to 2147483647" in told["error"]["message"]


@pytest.mark.parametrize("field", ["temperature", "scalars"])
def test_a_number_that_no_float_can_hold_is_refused(client, field):
    run = client.new_run(lora={"rank": 2})
    given = {"margin": 10**400} if field == "scalars" else 10**400
    body = {"data": [{"tokens": [5, 9, 41, 7], field: given}], "loss": {"type": "causal_lm"}}
    assert client.post(f"/v1/runs/{run}/forward", json=body).status_code == 400


@pytest.mark.parametrize("path", ["tokenize", "chat_template", "embeddings"])
def test_half_a_character_is_refused(client, path):
    said = {"tokenize": {"text": "a"}, "chat_template": {"messages": [{"role": "user", "content": "a"}]}}
    body = json.dumps(said.get(path, {"texts": ["a"]})).replace('"a"', '"a\\ud800"')
    answer = client.post(f"/v1/{path}", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["detail"]


@pytest.mark.parametrize("temperature", [1e-320, 5e-324, 1e300])
def test_a_temperature_that_nothing_can_be_divided_by_is_refused(client, temperature):
    sampler = client.said("POST", "/v1/samplers", {"model": "tiny"})["id"]
    read = {"requests": [{"tokens": [5, 9, 41], "draws": 1, "temperature": temperature}]}
    assert client.post(f"/v1/samplers/{sampler}/read", json=read).status_code == 400
    said = {"sequences": [[5, 9, 41]], "temperature": temperature}
    assert client.post(f"/v1/samplers/{sampler}/logprobs", json=said).status_code == 400


def test_a_number_that_no_curve_can_show_is_not_told(client):
    run = client.new_run(lora={"rank": 2})
    for row in ({"step": 1, "reward": 10**400}, {"step": 10**400, "reward": 1}, {"step": 1, "reward": -(10**301)}):
        assert client.post(f"/v1/runs/{run}/metrics", json={"rows": [row]}).status_code == 400
    client.said("POST", f"/v1/runs/{run}/metrics", {"rows": [{"step": 1, "reward": 1e9}]})


@pytest.mark.parametrize("path", ["/v1/tokenize", "/v1/samplers/{}/sample", "/v1/embeddings"])
def test_others_are_answered_while_a_long_text_becomes_tokens(shared, client, path):
    done, long = threading.Event(), "one two " * 100_000
    sampler = client.said("POST", "/v1/samplers", {"model": "tiny"})["id"]
    body = {"text": long} if path.endswith("tokenize") else {"texts": [long]}

    def send() -> None:
        client.post(path.format(sampler), json={"requests": [{"prompt": long}]} if "sample" in path else body)
        done.set()

    thread = threading.Thread(target=send)
    thread.start()
    answered = 0
    with shared.client() as other:
        while not done.is_set() and other.get("/healthz").status_code == 200:
            answered += 1
    thread.join()
    assert answered > 5, "the service said nothing meanwhile"
