"""Runs over HTTP: begun, worked on, paused, resumed, completed; and nobody else's business."""

import itertools

import pytest

from tests.service.served import serving

DATUM = {"tokens": [5, 9, 41, 7, 11], "loss_mask": [0, 0, 1, 1, 1]}
BATCH = {"data": [DATUM], "loss": {"type": "causal_lm"}}
STEP = {"optimizer": {"learning_rate": 0.01}}

LEADS_TO = {
    "active": {"pause": "paused", "resume": "active", "complete": "completed"},
    "paused": {"pause": "paused", "resume": "active", "complete": "completed"},
    "completed": {"complete": "completed"},
}


def trained(client, run: str, steps: int) -> list[float]:
    """The loss before each step."""
    losses = []
    for _ in range(steps):
        losses.append(client.said("POST", f"/v1/runs/{run}/forward_backward?wait=30", BATCH)["result"]["loss"])
        client.said("POST", f"/v1/runs/{run}/optim_step?wait=30", STEP)
    return losses


def test_a_run_is_begun_and_trained_and_its_loss_falls(client):
    run = client.new_run(lora={"rank": 4}, name="first", metadata={"team": "a"})
    losses = trained(client, run, 3)
    assert losses[0] > losses[1] > losses[2]
    told = client.said("GET", f"/v1/runs/{run}")
    assert (told["version"], told["name"], told["metadata"], told["base_model"]) == (3, "first", {"team": "a"}, "tiny")


@pytest.mark.parametrize(("state", "move"), [*itertools.product(LEADS_TO, ("pause", "resume", "complete"))])
def test_a_run_moves_only_where_it_can(client, state, move):
    run = client.new_run(lora={"rank": 2})
    if state != "active":
        client.said("POST", f"/v1/runs/{run}/{'pause' if state == 'paused' else 'complete'}")
    leads_to = LEADS_TO[state].get(move)
    told = client.said("POST", f"/v1/runs/{run}/{move}", status=409 if leads_to is None else 200)
    assert told["error"]["code"] == "state" if leads_to is None else told["state"] == leads_to
    assert client.said("GET", f"/v1/runs/{run}")["state"] == (leads_to or state)
    if (leads_to or state) != "completed":
        client.said("POST", f"/v1/runs/{run}/complete")


def test_a_paused_run_takes_no_work_and_goes_on_to_the_same_bits(client):
    run, twin = (client.new_run(lora={"rank": 4}, seed=3) for _ in range(2))
    before = trained(client, run, 2)
    client.said("POST", f"/v1/runs/{run}/forward_backward?wait=30", BATCH)
    client.said("POST", f"/v1/runs/{run}/pause")
    assert client.said("GET", f"/v1/runs/{run}")["parked"]
    assert client.said("POST", f"/v1/runs/{run}/optim_step", STEP, status=409)["error"]["code"] == "state"
    client.said("POST", f"/v1/runs/{run}/resume")
    client.said("POST", f"/v1/runs/{run}/optim_step?wait=30", STEP)
    after = trained(client, run, 2)
    assert before + after == [loss for place, loss in enumerate(trained(client, twin, 5)) if place != 2]


def test_a_run_belongs_to_its_tenant(shared, client):
    run = client.new_run(lora={"rank": 2})
    with shared.client(shared.other_key) as other:
        for method, path in [
            ("GET", ""),
            ("POST", "/pause"),
            ("POST", "/attach"),
            ("POST", "/optim_step"),
            ("GET", "/metrics"),
            ("GET", "/checkpoints"),
        ]:
            foreign = other.said(method, f"/v1/runs/{run}{path}", {}, status=404)
            unknown = other.said(method, f"/v1/runs/run-none{path}", {}, status=404)
            assert foreign["detail"].replace(run, "") == unknown["detail"].replace("run-none", "")
        assert other.said("GET", "/v1/runs")["total"] == 0


def test_the_same_request_with_an_id_begins_one_run(client):
    first = client.said("POST", "/v1/runs", {"id": "mine", "base_model": "tiny", "lora": {"rank": 2}})
    again = client.said("POST", "/v1/runs", {"id": "mine", "base_model": "tiny", "lora": {"rank": 2}})
    assert first["promise"] == again["promise"]
    other = client.said("POST", "/v1/runs", {"id": "mine", "base_model": "tiny", "lora": {"rank": 3}}, status=409)
    assert other["error"]["code"] == "sequence"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"base_model": "tinny"}, "did you mean tiny"),
        ({"base_model": "tiny", "lora": {"rank": 512}}, "lora.rank is 512"),
        ({"base_model": "tiny", "quantization": "int8"}, "set lora as well"),
        ({"base_model": "tiny", "laura": {}}, "laura"),
        ({}, "base_model"),
        ({"base_model": "tiny", "id": "../up"}, "cannot be used"),
        ({"checkpoint": "nobody/weights/none"}, "there is no checkpoint"),
        ({"base_model": "tiny", "session": "session-none"}, "there is no session"),
    ],
)
def test_a_run_that_cannot_be_is_refused_in_a_sentence(client, body, said):
    response = client.request("POST", "/v1/runs", json=body)
    assert response.status_code in (400, 404)
    assert said in response.json()["detail"]


def test_a_newer_holder_shuts_out_the_older(client):
    run = client.new_run(lora={"rank": 2})
    assert client.said("POST", f"/v1/runs/{run}/attach")["incarnation"] == 1
    stale = {"incarnation": 0, "seq": 0, **BATCH}
    assert client.said("POST", f"/v1/runs/{run}/forward_backward", stale, status=409)["error"]["code"] == "sequence"
    fresh = {"incarnation": 1, "seq": 0, **BATCH}
    assert client.said("POST", f"/v1/runs/{run}/forward_backward?wait=30", fresh)["status"] == "completed"


def test_what_a_run_does_is_told_a_row_a_step_beside_what_its_client_tells(client):
    run = client.new_run(lora={"rank": 4})
    losses = trained(client, run, 2)
    client.said("POST", f"/v1/runs/{run}/metrics", {"rows": [{"step": 2, "reward/mean": 0.5}]})
    rows = client.said("GET", f"/v1/runs/{run}/metrics")["rows"]
    assert [(row["step"], row["loss"]) for row in rows if "loss" in row] == [(1, losses[0]), (2, losses[1])]
    assert {"step": 2, "reward/mean": 0.5} in client.said("GET", f"/v1/runs/{run}/metrics?after=1")["rows"]
    client.said("POST", f"/v1/runs/{run}/metrics", {"rows": [{"reward": 1}]}, status=400)


def test_there_are_only_so_many_runs_in_memory(tmp_path, tiny_model):
    with serving(tmp_path / "state", tiny_model, max_policies=1) as served, served.client() as client:
        first = client.new_run(lora={"rank": 2})
        refused = client.request("POST", "/v1/runs", json={"base_model": "tiny"})
        assert refused.status_code == 429
        assert int(refused.headers["Retry-After"]) >= 1
        client.said("POST", f"/v1/runs/{first}/pause")
        client.new_run(lora={"rank": 2})


def test_a_long_series_is_told_in_parts(client):
    run = client.new_run()
    rows = [{"step": 1, "number": number} for number in range(5)]
    client.said("POST", f"/v1/runs/{run}/metrics", {"rows": rows})
    first = client.said("GET", f"/v1/runs/{run}/metrics?limit=3")
    assert first == {"rows": rows[:3], "more": True}
    assert client.said("GET", f"/v1/runs/{run}/metrics?limit=3&offset=3") == {"rows": rows[3:], "more": False}
    client.said("GET", f"/v1/runs/{run}/metrics?limit=0", status=422)
    assert client.said("GET", f"/v1/runs/{run}/episodes") == {"episodes": [], "more": False}
