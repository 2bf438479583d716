"""Checkpoints over HTTP: saved, taken up, fetched, kept for a while, published, deleted."""

import io
import tarfile
import time

import pytest
from safetensors.numpy import load

BATCH = {"data": [{"tokens": [5, 9, 41, 7, 11]}], "loss": {"type": "causal_lm"}}
SEQUENCE = {"sequences": [[5, 9, 41, 7, 11]]}


def stepped(client, run: str) -> float:
    loss = client.said("POST", f"/v1/runs/{run}/forward_backward?wait=30", BATCH)["result"]["loss"]
    client.said("POST", f"/v1/runs/{run}/optim_step?wait=30", {"learning_rate": 0.02})
    return loss


def saved(client, run: str, name: str, **settings) -> str:
    body = {"name": name, **settings}
    uri = client.said("POST", f"/v1/runs/{run}/save_state?wait=30", body)["result"]["path"]
    return uri.removeprefix("fettle://")


@pytest.fixture
def run(client):
    return client.new_run(lora={"rank": 4})


def test_a_run_goes_on_from_a_checkpoint_to_the_same_bits(client, run):
    stepped(client, run)
    id = saved(client, run, "one")
    expected = [stepped(client, run) for _ in range(2)]
    again = client.said("POST", "/v1/runs?wait=30", {"checkpoint": id})
    assert (again["checkpoint"], again["version"]) == (id, 1)
    assert [stepped(client, again["id"]) for _ in range(2)] == expected
    client.said("POST", f"/v1/runs/{run}/load_state?wait=30", {"checkpoint": f"fettle://{id}"})
    assert [stepped(client, run) for _ in range(2)] == expected


def test_a_checkpoint_can_be_sampled_and_begun_from_as_a_model(client, run):
    stepped(client, run)
    id = saved(client, run, "small", optimizer=False)
    assert id == f"{run}/sampler_weights/small"
    of_run = client.said("POST", "/v1/samplers", {"run_id": run})["id"]
    of_checkpoint = client.said("POST", "/v1/samplers", {"checkpoint": id})["id"]
    rows = [client.said("POST", f"/v1/samplers/{s}/logprobs", SEQUENCE)["logprobs"] for s in (of_run, of_checkpoint)]
    assert rows[0][0][1:] == pytest.approx(rows[1][0][1:], abs=1e-4)
    begun = client.said("POST", "/v1/runs?wait=30", {"base_model": f"fettle://{id}", "lora": {"rank": 2}})
    assert (begun["state"], begun["version"]) == ("active", 0)
    assert begun["id"] in client.said("DELETE", f"/v1/checkpoints/{id}", status=409)["detail"]
    client.said("POST", f"/v1/runs/{begun['id']}/complete")
    client.said("DELETE", f"/v1/checkpoints/{id}")


def test_checkpoints_are_listed_newest_first_with_what_is_in_them(client, run):
    for name in ("one", "two"):
        stepped(client, run)
        saved(client, run, name, metadata={"why": name})
    told = client.said("GET", f"/v1/runs/{run}/checkpoints")
    assert [(each["name"], each["version"]) for each in told["checkpoints"]] == [("two", 2), ("one", 1)]
    assert told["total"] == 2
    deadline = time.monotonic() + 20
    while not client.said("GET", f"/v1/checkpoints/{run}/weights/one")["bytes"] and time.monotonic() < deadline:
        time.sleep(0.05)
    one = client.said("GET", f"/v1/checkpoints/{run}/weights/one")
    files = client.said("GET", f"/v1/checkpoints/{run}/weights/one/files")["files"]
    assert one["bytes"] == sum(file["bytes"] for file in files)
    assert one["metadata"] == {"why": "one"}


def test_files_and_archive_are_what_was_saved(client, run):
    id = saved(client, run, "one")
    files = {file["name"]: file["bytes"] for file in client.said("GET", f"/v1/checkpoints/{id}/files")["files"]}
    weights = client.get(f"/v1/checkpoints/{id}/files/adapter_model.safetensors").content
    assert len(weights) == files["adapter_model.safetensors"]
    assert load(weights)
    archive = client.get(f"/v1/checkpoints/{id}/archive")
    with tarfile.open(fileobj=io.BytesIO(archive.content)) as tar:
        assert {member.name: member.size for member in tar} == files
        assert tar.extractfile("adapter_model.safetensors").read() == weights


@pytest.mark.parametrize("name", ["..%2f..%2fpolicy.json", "%2fetc%2fpasswd", "none", "../../../catalogue.sqlite3"])
def test_nothing_beside_a_checkpoint_can_be_fetched(client, run, name):
    id = saved(client, run, "one")
    assert client.get(f"/v1/checkpoints/{id}/files/{name}").status_code == 404


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "x" * 300, "a\u0000b"])
def test_a_name_that_can_be_no_folders_is_refused(client, run, name):
    assert client.request("POST", f"/v1/runs/{run}/save_state", json={"name": name}).status_code == 400


def test_a_name_is_used_once_unless_it_is_to_be_overwritten(client, run):
    stepped(client, run)
    first = client.said("GET", f"/v1/checkpoints/{saved(client, run, 'one')}")
    stepped(client, run)
    refused = client.said("POST", f"/v1/runs/{run}/save_state", {"name": "one"}, status=400)
    assert refused["error"]["code"] == "checkpoint"
    second = client.said("GET", f"/v1/checkpoints/{saved(client, run, 'one', overwrite=True)}")
    assert (first["id"], first["version"]) == (second["id"], 1)
    assert second["version"] == 2
    assert client.said("POST", "/v1/runs?wait=30", {"checkpoint": second["id"]})["version"] == 2


def test_a_checkpoint_is_its_tenants_until_it_is_published(shared, client, run):
    id = saved(client, run, "one")
    with shared.client(shared.other_key) as other:
        for path in ("", "/files", "/archive", "/files/policy.json"):
            assert other.get(f"/v1/checkpoints/{id}{path}").status_code == 404
        client.said("POST", f"/v1/checkpoints/{id}/publish")
        assert other.said("GET", f"/v1/checkpoints/{id}")["public"]
        assert other.said("POST", "/v1/runs?wait=30", {"checkpoint": id})["state"] == "active"
        for method, path in (("DELETE", ""), ("POST", "/publish"), ("PUT", "/ttl")):
            assert other.request(method, f"/v1/checkpoints/{id}{path}", json={"ttl_seconds": 1}).status_code == 404
        client.said("DELETE", f"/v1/checkpoints/{id}/publish")
        assert other.get(f"/v1/checkpoints/{id}").status_code == 404


def test_a_checkpoint_goes_when_it_is_deleted_or_its_time_is_up(client, run):
    kept, deleted, expiring = (saved(client, run, name) for name in ("kept", "deleted", "expiring"))
    client.said("DELETE", f"/v1/checkpoints/{deleted}")
    client.said("PUT", f"/v1/checkpoints/{expiring}/ttl", {"ttl_seconds": 0.2})
    client.said("PUT", f"/v1/checkpoints/{kept}/ttl", {"ttl_seconds": None})
    time.sleep(0.3)
    for id in (deleted, expiring):
        assert client.get(f"/v1/checkpoints/{id}").status_code == 404
        assert client.request("POST", "/v1/runs", json={"checkpoint": id}).status_code == 404
    assert client.said("GET", f"/v1/checkpoints/{kept}")["expires_at"] is None
