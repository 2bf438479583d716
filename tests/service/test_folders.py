"""Where a server keeps things is in its log, and in nothing that a client is told."""

import logging
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fettle.config import ServedModel, ServiceConfig
from fettle.service.folders import Folders
from tests.service.served import PATIENCE_S, Client, Served, serving

CANARY = "canary-of-this-machine"
BATCH = {"data": [{"tokens": [5, 9, 41, 7, 11]}], "loss": {"type": "causal_lm"}}
BEYOND = {"data": [{"tokens": [5, 9, 10**6]}], "loss": {"type": "causal_lm"}}
LORA = {"lora": {"rank": 2}}


@pytest.mark.parametrize(
    ("sentence", "told"),
    [
        ("the vocabulary of /srv/models/qwen is 0 to 9", "the vocabulary of qwen is 0 to 9"),
        ("the tokenizer of /srv/models/qwen-big is not that", "the tokenizer of big is not that"),
        ("no readable '/srv/models/qwen/config.json'.", "no readable 'qwen/config.json'."),
        ("/srv/fettle/checkpoints/r/weights/c lacks policy.json", "fettle://r/weights/c lacks policy.json"),
        ("/srv/fettle/checkpoints/r/weights/c@0a1b2c3d/x.json is not", "fettle://r/weights/c/x.json is not"),
        ("the journal /srv/fettle/journal failed (/srv/fettle)", "the journal state/journal failed (state)"),
        ("checkpoints in bucket/runs cannot be reached", "checkpoints in the artifact store cannot be reached"),
        ("no model is served as '/etc': see /openapi.json", "no model is served as '/etc': see /openapi.json"),
        ("/srv/fettle-old and /data/srv/fettle are others", "/srv/fettle-old and /data/srv/fettle are others"),
        ("the bare word is the sentence's own", "the bare word is the sentence's own"),
    ],
)
def test_a_folder_is_told_by_the_name_that_clients_have_for_it(sentence, told):
    served = {"qwen": "/srv/models/qwen", "big": "/srv/models/qwen-big", "small": "bare"}
    models = tuple(ServedModel(name=name, path=path) for name, path in served.items())
    settings = ServiceConfig(models=models, state="/srv/fettle", artifacts_url="s3://bucket/runs")
    assert Folders(settings).told(sentence) == told


def test_what_is_asked_for_again_and_again_is_in_the_log_once(caplog):
    folders = Folders(ServiceConfig(models=(ServedModel(name="qwen", path="/srv/models/qwen"),)))
    logging.getLogger("fettle").propagate = True
    for _ in range(3):
        assert folders.told("the context of /srv/models/qwen is 9") == "the context of qwen is 9"
    assert caplog.text.count("/srv/models/qwen") == 1


@pytest.fixture(scope="module")
def hidden(tmp_path_factory: pytest.TempPathFactory, tiny_model: str) -> Iterator[Served]:
    """A service all of whose folders lie below the canary."""
    root = tmp_path_factory.mktemp("hidden") / CANARY
    model = str(shutil.copytree(tiny_model, root / "models" / "folder"))
    with serving(root / "state", model) as found:
        yield found


class Ear:
    """What clients were told, in one text."""

    def __init__(self, client: Client) -> None:
        self.text = ""
        client.event_hooks = {"response": [self._hear]}

    def _hear(self, response) -> None:
        self.text += f"{response.headers}{response.read().decode(errors='replace')}\n"


@pytest.fixture
def client(hidden: Served) -> Iterator[Client]:
    with hidden.client() as found:
        yield found


@pytest.fixture
def heard(client: Client) -> Ear:
    return Ear(client)


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    logging.getLogger("fettle").propagate = True
    with caplog.at_level(logging.WARNING, "fettle"):
        yield caplog


def saved(client: Client, name: str) -> tuple[str, str]:
    """A run, and a checkpoint of it."""
    run = client.new_run(**LORA)
    client.said("POST", f"/v1/runs/{run}/forward_backward?wait=30", BATCH)
    client.said("POST", f"/v1/runs/{run}/optim_step?wait=30", {"learning_rate": 0.01})
    client.said("POST", f"/v1/runs/{run}/save_state?wait=30", {"name": name})
    return run, f"{run}/weights/{name}"


def checkpoint_folder(hidden: Served, id: str) -> Path:
    return Path(hidden.service.settings.state) / "checkpoints" / id


def only_the_log_knows(heard: Ear, log: pytest.LogCaptureFixture, *said: str) -> None:
    """The refusal was told, by the names that clients have; the folders are in the log."""
    for each in said:
        assert each in heard.text
    assert CANARY not in heard.text
    assert CANARY in log.text, heard.text


def test_a_batch_beyond_the_vocabulary_is_of_the_model_by_its_name(client, heard, log):
    run = client.new_run(**LORA)
    client.post(f"/v1/runs/{run}/forward_backward?wait=30", json=BEYOND)
    client.post(
        f"/v1/runs/{run}/forward_backward?wait=30", json=BEYOND, headers={"Accept": "application/vnd.fettle.frame"}
    )
    only_the_log_knows(heard, log, "the vocabulary of tiny is 0 to")


def test_scores_of_a_model_without_a_head(client, heard, log):
    sampler = client.said("POST", "/v1/samplers", {"model": "tiny"})["id"]
    client.said("POST", f"/v1/samplers/{sampler}/score", {"sequences": [[5, 9]]}, status=400)
    only_the_log_knows(heard, log, "tiny has no reward head")


def test_a_damaged_checkpoint_that_is_taken_up(client, hidden, heard, log):
    run, id = saved(client, "damaged")
    (checkpoint_folder(hidden, id) / "adapter_model.safetensors").write_bytes(b"damaged")
    begun = client.post("/v1/runs?wait=30", json={"checkpoint": id, "id": "from-damaged"})
    assert not begun.is_success or begun.json()["state"] == "failed"
    assert "is not what was saved" in client.said("GET", "/v1/runs/from-damaged")["reason"]
    client.post(f"/v1/runs/{run}/load_state?wait=30", json={"checkpoint": id})
    client.said("POST", "/v1/samplers", {"checkpoint": id}, status=400)
    client.post("/sign-in", data={"key": hidden.key})
    assert "is not what was saved" in client.get("/runs/from-damaged").text
    client.post("/v1/completions", json={"model": f"fettle://{id}", "prompt": [5], "max_tokens": 1})
    session = client.said("POST", "/api/v1/create_session", {"tags": [], "sdk_version": "0.38.0"})["session_id"]
    client.post(
        "/api/v1/create_sampling_session",
        json={"session_id": session, "sampling_session_seq_id": 0, "model_path": f"tinker://{id}"},
    )
    only_the_log_knows(heard, log, f"fettle://{id}/adapter_model.safetensors is not what was saved")


def test_a_checkpoint_whose_folder_is_gone(client, hidden, heard, log):
    _, id = saved(client, "gone")
    shutil.rmtree(checkpoint_folder(hidden, id))
    for path, body in (("/v1/samplers", {"checkpoint": id}), ("/v1/runs?wait=30", {"checkpoint": id})):
        assert not client.post(path, json=body).is_success
    assert not client.get(f"/v1/checkpoints/{id}/files").is_success
    only_the_log_knows(heard, log, "use another")


def test_a_checkpoint_that_cannot_be_written(client, hidden, heard, log):
    run = client.new_run(**LORA)
    place = checkpoint_folder(hidden, run)
    place.parent.mkdir(exist_ok=True)
    place.write_text("no folder")
    client.post(f"/v1/runs/{run}/save_state?wait=30", json={"name": "nowhere"})
    only_the_log_knows(heard, log, "could not be written", f"fettle://{run}/weights/nowhere")


def test_metrics_that_cannot_be_written(client, hidden, heard, log):
    run = client.new_run(**LORA)
    place = Path(hidden.service.settings.state) / "runs"
    place.mkdir(exist_ok=True)
    (place / run).write_text("no folder")
    client.said("POST", f"/v1/runs/{run}/metrics", {"rows": [{"step": 1, "reward": 1.0}]}, status=503)
    only_the_log_knows(heard, log, f"state/runs/{run}/metrics.jsonl could not be written")


def test_a_model_whose_files_are_damaged_since(client, hidden, heard, log):
    weights = Path(hidden.model) / "model.safetensors"
    whole = weights.with_name("whole")
    os.link(weights, whole)
    damaged = weights.with_name("damaged")
    damaged.write_bytes(b"damaged")
    damaged.replace(weights)  # Cut short in its place, it would end whoever is reading it, as a new service does.
    try:
        client.post("/v1/runs?wait=30", json={"base_model": "tiny", "id": "whole-weights"})
        assert client.said("GET", "/v1/runs/whole-weights")["state"] == "failed"
    finally:
        whole.replace(weights)
    only_the_log_knows(heard, log, "the model in tiny cannot be loaded")


def test_a_model_that_is_gone(client, hidden, heard, log):
    folder = Path(hidden.model)
    away = folder.rename(folder.with_name("away"))
    try:
        begun = client.post("/v1/runs", json={"base_model": "tiny", "id": "of-nothing"})
        deadline = time.monotonic() + PATIENCE_S
        while begun.is_success and begun.json().get("state", "active") == "active" and time.monotonic() < deadline:
            begun = client.get("/v1/runs/of-nothing")
    finally:
        away.rename(folder)
    only_the_log_knows(heard, log, "tiny")
