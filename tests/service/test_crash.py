"""A process that is killed: what it acknowledged is done once, and training goes on to the same bits."""

import threading
import time

import httpx
import pytest

from tests.service.served import Spawned

STEPS = 12
RUN = {"base_model": "tiny", "lora": {"rank": 4}, "seed": 7}
SEQUENCE = {"sequences": [[5, 9, 41, 7, 11, 3, 2]]}


def operations() -> list[tuple[str, dict]]:
    """What one run is told to do, in order."""
    told = []
    for step in range(STEPS):
        data = [{"tokens": [5, 9, 41 + step, 7, 11 + row]} for row in range(4)]
        told.append(("forward_backward", {"data": data, "loss": {"type": "causal_lm"}}))
        told.append(("optim_step", {"learning_rate": 0.01}))
    return [*told, ("sampler", {}), ("save_state", {"name": "end"})]


def send(client, run: str, first: int = 0) -> list[str]:
    """Send all operations without waiting for any; the ids of those that were acknowledged."""
    ids = []
    try:
        for seq, (verb, said) in enumerate(operations()[first:], start=first):
            body = {"incarnation": 0, "seq": seq, **said}
            ids.append(client.said("POST", f"/v1/runs/{run}/{verb}", body)["id"])
    except httpx.TransportError:
        pass
    return ids


def outcome(client, run: str) -> tuple[list, dict, str]:
    """The losses, log-probabilities under the final weights, and the digest of the last checkpoint."""
    results = [client.result(f"{run}.0.{seq}") for seq in range(2 * STEPS + 2)]
    read = client.said("POST", f"/v1/samplers/{run}.0.{2 * STEPS}/logprobs", SEQUENCE)
    return [result["loss"] for result in results[: 2 * STEPS : 2]], read, results[-1]["digest"]


@pytest.fixture(scope="module")
def service(tmp_path_factory, tiny_model):
    """One for all of these, since starting takes longest."""
    found = Spawned(tmp_path_factory.mktemp("crash") / "state", tiny_model, "journal.snapshot_operations=5")
    yield found.start()
    found.close()


def test_killed_in_the_middle_a_run_ends_with_the_weights_of_an_undisturbed_one(service):
    with service.client() as client:
        run = client.said("POST", "/v1/runs?wait=60", {"id": "killed", **RUN})["id"]
        sent: list[str] = []
        sender = threading.Thread(target=lambda: sent.extend(send(client, run)))
        sender.start()
        while int(client.said("GET", f"/v1/runs/{run}")["version"]) < 2 and sender.is_alive():
            time.sleep(0.01)
        service.kill()
        sender.join()
    service.start()
    with service.client() as client:
        told = client.said("GET", f"/v1/runs/{run}")
        assert told["next_seq"] >= len(sent)
        assert send(client, run) == [f"{run}.0.{seq}" for seq in range(2 * STEPS + 2)]
        killed = outcome(client, run)
        assert client.said("GET", f"/v1/runs/{run}")["version"] == STEPS
        twin = client.said("POST", "/v1/runs?wait=60", {"id": "undisturbed", **RUN})["id"]
        send(client, twin)
        assert killed == outcome(client, twin)
        service.ask_to_stop()
        assert service.ended() == 0
    service.start()
    with service.client() as client:
        assert client.said("POST", f"/v1/samplers/{run}.0.{2 * STEPS}/logprobs", SEQUENCE) == killed[1]
        assert client.said("GET", f"/v1/checkpoints/{run}/weights/end")["digest"] == killed[2]


def test_a_full_disk_refuses_work_and_loses_none(service):
    """The limit of a file's size stands for the disk's: the journal's file can grow no further."""
    with service.client() as client:
        run = client.said("POST", "/v1/runs?wait=60", {"id": "crowded", **RUN})["id"]
        send(client, run)
        expected = outcome(client, run)
        twin = client.said("POST", "/v1/runs?wait=60", {"id": "roomy", **RUN})["id"]
        service.limit_files(max(path.stat().st_size for path in (service.state / "journal").rglob("*.log")) + 64)
        body = {"incarnation": 0, "seq": 0, "data": [{"tokens": [5, 9] * 30}] * 64, "loss": {"type": "causal_lm"}}
        for _ in range(2):
            refused = client.request("POST", f"/v1/runs/{twin}/forward_backward", json=body)
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "storage")
            assert int(refused.headers["Retry-After"]) >= 1
        assert client.said("GET", f"/v1/runs/{twin}")["next_seq"] == 0
        service.limit_files(None)
        send(client, twin)
        assert outcome(client, twin) == expected
