"""MLflow, a real server: runs go on, conversations are traces, checkpoints have versions, trials are nested."""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from fettle.cli.parents import adopted, told_the_end
from fettle.compat.rllm import MLIntegration, RLLMConfig
from fettle.config.load import dump, load
from fettle.config.study import Study
from fettle.errors import StorageError
from fettle.tracking import Transcript
from fettle.tracking.sinks import Described, Model, open_sink
from fettle.tuning import StudyFolder
from fettle.tuning.report import Line, Side, Standing
from fettle.types import Message, ToolCall
from tests.cli.conftest import furnished

TALK = Transcript(
    title="sum-7",
    messages=(
        Message("system", "Reckon."),
        Message("user", "1 + 2 ="),
        Message("assistant", "", (ToolCall("a", "add", "[1, 2]"),)),
        Message("tool", "3", tool_call_id="a"),
        Message("assistant", "3"),
    ),
    reward=0.75,
    components={"exact": 1.0, "calls@1": -0.25},
    group="group-3",
)


STUDY = Study.model_validate({"space": {"steps": {"type": "int", "low": 1, "high": 9}}, "seeds": (1, 2)})
BEST = Line(0, "finished", 0.5, 4, 1.0, "trial-0000", None, "", {"steps": 4})
FOUND = Standing((BEST,), 0, {}, {"best": Side({1: 0.4, 2: 0.6}, 0.5, 0.1, 0.9)})
TAGS = {
    "mlflow.note.content": "what it is for",
    "mlflow.parentRunId": "0" * 32,
    "fettle.commit": "abc",
    "a": "true",
    "b": "true",
    "entity": "us",
    "simulated": "true",
}


def described(kept: Path) -> Described:
    return Described(
        name="eight",
        description="what it is for",
        tags=("a", "b"),
        project="sums",
        entity="us",
        settings={f"a.{n}": n for n in range(130)},
        simulated=True,
        facts={"fettle.commit": "abc"},
        kept=kept,
        parent="0" * 32,
        traces=1,
    )


SERVED = """
import os, sys
import mlflow.server, uvicorn

_, port, database, artifacts = sys.argv
os.environ[mlflow.server.BACKEND_STORE_URI_ENV_VAR] = database
os.environ[mlflow.server.ARTIFACTS_DESTINATION_ENV_VAR] = artifacts
os.environ[mlflow.server.ARTIFACT_ROOT_ENV_VAR] = "mlflow-artifacts:/"
os.environ[mlflow.server.SERVE_ARTIFACTS_ENV_VAR] = "true"
uvicorn.run("mlflow.server.fastapi_app:app", port=int(port))
"""
"""What its command comes to, which starts another Python for it and imports everything in both."""


@dataclass(frozen=True)
class Server:
    """MLflow's own, at an address, and its own client."""

    address: str
    client: Any

    def run(self, experiment: str) -> Any:
        """The only one of an experiment."""
        [found] = self.client.search_runs([self.client.get_experiment_by_name(experiment).experiment_id])
        return found


@pytest.fixture
def mlflow() -> Iterator[Server]:
    """A server, which takes seconds to start: it is for one test."""
    pytest.importorskip("flask_cors", reason="MLflow's server is of the package mlflow; mlflow-skinny only sends")
    client_to = pytest.importorskip("mlflow").MlflowClient
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = door.getsockname()[1]
    # In memory where there is such a place: its database is made in a hundred steps, each of which waits for the disk.
    home = Path(tempfile.mkdtemp(prefix="fettle-mlflow-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
    process = subprocess.Popen(
        [sys.executable, "-c", SERVED, str(port), f"sqlite:///{home / 'mlflow.db'}", str(home / "kept")],
        env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    address, until = f"http://127.0.0.1:{port}", time.monotonic() + 240
    try:
        while not answers(f"{address}/health"):
            assert process.poll() is None, "the server did not start"
            assert time.monotonic() < until, "the server does not answer"
            time.sleep(0.1)
        yield Server(address, client_to(tracking_uri=address))
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(60)
        shutil.rmtree(home, ignore_errors=True)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=10):
            return True
    except OSError:
        return False


def test_a_real_server_has_all_there_is_to_know_of_a_run_that_was_interrupted_and_resumed(mlflow, tmp_path):
    checkpoint = tmp_path / "step-000002"
    checkpoint.mkdir()
    (checkpoint / "weights").write_bytes(b"1234")
    (tmp_path / "report.md").write_text("# A report")
    first = open_sink("mlflow", mlflow.address, described(tmp_path))
    first.log(1, {"heldout/pass@4": 0.25})
    first.close(failed=True)
    assert mlflow.run("sums").info.status == "FAILED"
    again = open_sink("mlflow", mlflow.address, described(tmp_path))
    again.catch_up([{"step": at, "time": 1e9 + at, "heldout/pass@4": 0.25} for at in (0, 1)])
    again.log(2, {"heldout/pass@4": 0.5})
    again.transcripts(2, [TALK, TALK])
    again.keep([tmp_path / "report.md"], Model(checkpoint, "reckoner", "best", {"fettle.digest": "d" * 64}))
    again.close()
    run = mlflow.run("sums")
    assert run.info.run_id == again.identity == json.loads((tmp_path / "mlflow.json").read_text())["run"]
    check_what_it_is_told(mlflow.client, run)
    check_the_registered_model(mlflow.client, run, tmp_path)
    check_the_trace(mlflow.client, run)
    check_the_best_run(mlflow, tmp_path, run)
    check_a_study(mlflow, tmp_path)


def check_the_best_run(server, folder, first) -> None:
    better = open_sink("mlflow", server.address, replace(described(folder), name="nine", kept=None))
    better.log(1, {"heldout/pass@4": 0.75})
    better.close()
    integration = MLIntegration(RLLMConfig())
    asyncio.run(integration.setup_mlflow("sums", server.address))
    metric = "heldout/pass_at_4"
    best, least = (asyncio.run(integration.best_run(metric, least=least)) for least in (False, True))
    assert best == {"run_id": better.identity, "name": "nine", metric: 0.75}
    assert least == {"run_id": first.info.run_id, "name": "eight", metric: 0.5}
    assert asyncio.run(integration.best_run("heldout/none")) is None
    server.client.delete_run(better.identity)


def check_what_it_is_told(client, run) -> None:
    assert (run.info.run_name, run.info.status) == ("eight", "FINISHED")
    assert (len(run.data.params), run.data.params["a.7"]) == (130, "7")
    told = {name: run.data.tags[name] for name in TAGS}
    assert told == TAGS
    history = client.get_metric_history(run.info.run_id, "heldout/pass_at_4")
    assert sorted((point.step, point.value) for point in history) == [(0, 0.25), (1, 0.25), (2, 0.5)]


def check_the_registered_model(client, run, folder) -> None:
    version = client.get_model_version_by_alias("reckoner", "best")
    assert (version.run_id, version.tags["fettle.digest"]) == (run.info.run_id, "d" * 64)
    there = client.download_artifacts(run.info.run_id, "checkpoint/weights", str(folder))
    assert Path(there).read_bytes() == b"1234"
    assert {each.path for each in client.list_artifacts(run.info.run_id)} == {"checkpoint", "report.md"}


def check_the_trace(client, run) -> None:
    [trace] = client.search_traces(locations=[run.info.experiment_id])
    assert trace.info.trace_metadata["mlflow.sourceRun"] == run.info.run_id
    assert trace.info.trace_metadata["mlflow.trace.session"] == "group-3"
    assert (trace.info.tags["task"], trace.info.tags["step"]) == ("sum-7", "2")
    rewards = {each.name: each.value for each in trace.info.assessments}
    assert rewards == {"reward": 0.75, "exact": 1.0, "calls_at_1": -0.25}
    root, *turns = trace.data.spans
    assert (root.name, root.outputs["reward"]) == ("rollout", 0.75)
    told = [(turn.span_type, turn.outputs["content"]) for turn in turns]
    assert told == [("CHAT_MODEL", ""), ("TOOL", "3"), ("CHAT_MODEL", "3")]
    assert [each["content"] for each in turns[-1].inputs["messages"]] == ["Reckon.", "1 + 2 =", "", "3"]


def check_a_study(server, folder) -> None:
    """Its trials are nested under a run of its own, which has the result."""
    recipe_path = furnished(folder / "desk") / "tiny.yaml"
    tracker = f"trackers=[{{type: mlflow, uri: '{server.address}', experiment: letters}}]"
    recipe = load(recipe_path, [tracker])
    study = StudyFolder.create(folder, "study", recipe=dump(recipe), study=dump(STUDY))
    nested = load(recipe_path, [tracker, *adopted(recipe, STUDY, study)])
    study.summary_path.write_text("{}")
    told_the_end(nested, STUDY, study, FOUND)
    run = server.run("letters")
    assert nested.trackers[0].parent == run.info.run_id
    assert (run.info.status, run.data.params["steps"]) == ("FINISHED", "type='int' low=1 high=9 step=1")
    assert run.data.metrics == {"search/heldout/reward": 0.5, "search/trial": 0.0, "best/heldout/reward": 0.5}
    assert "study.json" in {each.path for each in server.client.list_artifacts(run.info.run_id)}


def test_a_server_that_is_not_there_is_one_sentence_at_once(tmp_path):
    pytest.importorskip("mlflow")
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = door.getsockname()[1]
    with pytest.raises(StorageError, match=f"start a server there with mlflow server --port {port}") as caught:
        open_sink("mlflow", f"http://127.0.0.1:{port}", described(tmp_path))
    assert "\n" not in caught.value.message
