"""The OpenAPI document: every example in it is carried out, and every address in it answers."""

import re

import pytest


@pytest.fixture(scope="module")
def document(shared):
    with shared.client() as client:
        return client.said("GET", "/openapi.json")


@pytest.fixture(scope="module")
def made(shared):
    """A run with a checkpoint, and a sampler, for the examples to be about."""
    with shared.client() as client:
        run = client.new_run(id="run-1", lora={"rank": 4})
        client.said("POST", f"/v1/runs/{run}/save_state?wait=30", {"name": "step-1"})
        sampler = client.said("POST", "/v1/samplers", {"model": "tiny"})["id"]
    names = {"run_id": run, "sampler_id": sampler, "kind": "weights", "name": "step-1", "id": f"{run}.0.0"}
    return {**names, "file": "policy.json"}


def examples(document):
    for path, methods in document["paths"].items():
        for method, told in methods.items():
            content = told.get("requestBody", {}).get("content", {}).get("application/json", {})
            for name, example in content.get("examples", {}).items():
                if path.startswith("/v1/") and "native" in told["tags"]:
                    yield method.upper(), path, name, example["value"]


def test_every_example_is_carried_out(client, document, made):
    told = list(examples(document))
    assert len(told) > 20
    for method, path, name, body in told:
        own = dict(made)
        if path.endswith("/operations"):
            own["run_id"] = client.new_run(lora={"rank": 2})
        if path.endswith("/score"):
            own["sampler_id"] = client.said("POST", "/v1/samplers", {"run_id": client.new_run(head="reward")})["id"]
        if path.endswith("/save_state"):
            body = {**body, "overwrite": True}
        response = client.request(method, path.format(**own), json=body)
        assert response.is_success, f"{method} {path} {name}: {response.text}"
        if response.status_code == 202:
            answer = client.said("GET", f"/v1/futures/{response.json()['id']}?wait=30")
            # A step of a run of its own has no gradients yet, and says so.
            expected = "failed" if path.endswith("/operations") else "completed"
            assert answer["status"] == expected, f"{path} {name}: {answer}"


def test_everything_that_can_be_sent_is_described(document):
    for path, methods in document["paths"].items():
        for method, told in methods.items():
            assert told["summary"], f"{method} {path}"
            names = re.findall(r"{(\w+)(?::\w+)?}", path)
            assert names == [p["name"] for p in told.get("parameters", []) if p["in"] == "path"]


def test_nothing_in_the_document_points_out_of_it(document):
    text = str(document)
    assert "#/$defs" not in text
    for reference in set(re.findall(r"'\$ref': '#/components/schemas/([^']+)'", text)):
        assert reference in document["components"]["schemas"]
