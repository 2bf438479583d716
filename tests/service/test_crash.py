"""A process that is killed: what it acknowledged is done once, and training goes on to the same bits."""

import shutil
import subprocess
import threading
import time
from pathlib import Path

import httpx
import pytest

from tests.service.served import Spawned

STEPS = 12
RUN = {"base_model": "tiny", "lora": {"rank": 4}, "seed": 7}
DISK = 16 << 20
"""Bytes of a disk that is soon full."""
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


@pytest.fixture
def crowded(tmp_path, tiny_model):
    """A service whose journal lies on a small disk of its own."""
    journal = tmp_path / "state" / "journal"
    journal.mkdir(parents=True)
    mounted = f'mount -t tmpfs -o size={DISK} tmpfs "$0" && exec "$@"'
    within = ["unshare", "-Urm", "sh", "-c", mounted, str(journal)]
    if shutil.which("unshare") is None or subprocess.run([*within, "true"], capture_output=True).returncode:
        pytest.skip("a process cannot have a disk of its own here: this takes Linux and unshare with user namespaces")
    settings = ("journal.segment_mib=1", "journal.snapshot_operations=4")
    found = Spawned(tmp_path / "state", tiny_model, *settings, within=within)
    yield found.start()
    found.close()


def filled(journal: Path, *, but: int = 0) -> None:
    """Leave no more than so many bytes of the disk."""
    with (journal / "filler").open("ab", buffering=0) as file:
        free = shutil.disk_usage(journal).free - but
        file.write(bytes(max(0, free)))


def said_in_log(service: Spawned, words: str) -> None:
    deadline = time.monotonic() + 60
    while words not in service.log():
        assert time.monotonic() < deadline, service.log()[-2000:]
        time.sleep(0.02)


def large(seq: int, sequences: int) -> dict:
    data = [{"tokens": [5, 9] * 30}] * sequences
    return {"incarnation": 0, "seq": seq, "data": data, "loss": {"type": "causal_lm"}}


def patiently(client, path: str, body: dict) -> None:
    """Send until there is room: a snapshot that fails takes some for as long as it tries."""
    while (answer := client.request("POST", path, json=body)).status_code == 503:
        time.sleep(0.1)
    assert answer.is_success, answer.text


def test_a_disk_that_is_full_for_an_answer_a_snapshot_and_a_new_file_loses_nothing(crowded):
    journal = crowded.seen(crowded.state / "journal")
    with crowded.client() as client:
        runs = [client.said("POST", "/v1/runs?wait=60", {"id": id, **RUN})["id"] for id in ("run", "twin", "other")]
        send(client, "run", first=2 * STEPS)  # which wait for those before them
        program = operations()
        for seq in range(2):
            verb, said = program[seq]
            client.said("POST", f"/v1/runs/run/{verb}?wait=30", {"incarnation": 0, "seq": seq, **said})
        filled(journal, but=24 << 10)
        for seq in range(2, 6):
            verb, said = program[seq]
            client.said("POST", f"/v1/runs/run/{verb}?wait=30", {"incarnation": 0, "seq": seq, **said})
        said_in_log(crowded, "the policy run could not be written down")
        (journal / "filler").unlink()
        waiting = [client.said("POST", "/v1/runs/other/forward_backward", large(seq, 400))["id"] for seq in range(1, 4)]
        filled(journal, but=64 << 10)  # room for the call that they wait for, and for none of their answers
        patiently(client, "/v1/runs/other/forward_backward", large(0, 1))
        said_in_log(crowded, "answers cannot be written down")
        filled(journal)
        files = sorted(journal.glob("*.log"))
        refused = client.request("POST", "/v1/runs/other/forward_backward", json=large(4, 3000))
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "storage")
        assert sorted(journal.glob("*.log")) == files
        assert client.said("GET", f"/v1/futures/{waiting[-1]}")["status"] == "pending"
        (journal / "filler").unlink()
        tokens = [client.result(id)["num_tokens"] for id in waiting]
        assert tokens == [400 * 59] * 3
        client.said("POST", "/v1/runs/other/forward_backward", large(4, 3000))
        assert sorted(journal.glob("*.log"))[-1] > files[-1]
        for run in runs[:2]:
            send(client, run)
        assert outcome(client, "run") == outcome(client, "twin")
