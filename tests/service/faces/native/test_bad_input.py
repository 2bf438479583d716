"""Bodies that are nearly right: whatever is wrong with one, it is refused and nothing breaks."""

import json
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
