"""MLflow. The project is an experiment there, tags are tags, settings are parameters, conversations are traces."""

import importlib
import json
import os
import re
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fettle.errors import StorageError
from fettle.tracking.atomic import write_atomically
from fettle.tracking.base import Transcript
from fettle.tracking.folder import read_object
from fettle.tracking.sinks.base import Described, Model, Sink

LONGEST = 500
"""Characters of a parameter's value."""
LONGEST_TAG = 5000
MOST = 100
"""Parameters in one call."""
NOTE = "mlflow.note.content"
"""The tag that MLflow shows as a run's description."""
PARENT, SOURCE_RUN, SESSION = "mlflow.parentRunId", "mlflow.sourceRun", "mlflow.trace.session"
KEPT = "mlflow.json"
"""In a run's folder: which run of MLflow it is."""
CHECKPOINT = "checkpoint"
"""Among a run's artifacts, what was registered."""
REACHED_S = 5.0
TOGETHER_S, MOST_METRICS = 1.0, 1000
"""For how long rows wait for the next one, and how many metrics go at once."""

SET_FOR_IT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ASYNC_TRACE_LOGGING": "false",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""Read by MLflow, unless they are set to something else: by itself it tells its makers of every use, hands traces to
threads that tell nobody of their failures, tries for a quarter of an hour, and prints among what the command prints."""


def opened(destination: str, run: Described) -> Sink:
    """A run of MLflow at a tracking address; empty: the one that MLflow is set to. A resumed run goes on with its own.

    Raises:
        StorageError: there is no server at that address.
    """
    for name, value in SET_FOR_IT.items():
        os.environ.setdefault(name, value)
    mlflow: Any = importlib.import_module("mlflow")
    address = destination or mlflow.get_tracking_uri()
    _check_reached(address)
    client = mlflow.MlflowClient(tracking_uri=address)
    found = client.get_experiment_by_name(run.project)
    experiment = client.create_experiment(run.project) if found is None else found.experiment_id
    before = read_object(run.kept / KEPT).get("run") if run.kept is not None else None
    if before is not None:
        client.update_run(before, status="RUNNING")
        return MLflow(mlflow, client, address, experiment, str(before), run.traces)
    made = client.create_run(experiment, tags=_tags(run), run_name=run.name)
    parameters = [mlflow.entities.Param(_named(name), str(value)[:LONGEST]) for name, value in run.settings.items()]
    for some in _batched(parameters):
        client.log_batch(made.info.run_id, params=some)
    if run.kept is not None:
        told = {"run": made.info.run_id, "experiment": experiment, "address": address}
        write_atomically(run.kept / KEPT, json.dumps(told) + "\n")
    return MLflow(mlflow, client, address, experiment, made.info.run_id, run.traces)


def _batched(parameters: Sequence[Any]) -> list[Sequence[Any]]:
    return [parameters[at : at + MOST] for at in range(0, len(parameters), MOST)]


def _tags(run: Described) -> dict[str, str]:
    tags = {NOTE: run.description, "entity": run.entity, PARENT: run.parent, **dict.fromkeys(run.tags, "true")}
    tags |= {"simulated": str(run.simulated).lower(), **run.facts}
    return {name: value[:LONGEST_TAG] for name, value in tags.items() if value}


def _check_reached(address: str) -> None:
    """Refuses a server that is not there at once; MLflow by itself would try for minutes."""
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or parts.hostname is None:
        return
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        with socket.create_connection((parts.hostname, port), timeout=REACHED_S):
            return
    except OSError as error:
        raise StorageError(
            f"mlflow cannot be opened at {address} ({error.strerror or error}): start a server there with "
            f"mlflow server --port {port}, or correct the address"
        ) from error


class MLflow:
    """Satisfies ``Sink``."""

    def __init__(self, mlflow: Any, client: Any, address: str, experiment: str, run: str, traces: int) -> None:
        self._mlflow = mlflow
        self._client = client
        self._address = address
        self._experiment = experiment
        self._traces = traces
        self._waiting: list[Any] = []
        self._sent = 0.0
        self.identity = run

    def log(self, step: int, row: Mapping[str, float]) -> None:
        """Metrics, under names that MLflow takes; rows that come quickly one after another go together."""
        now = time.time_ns() // 1_000_000
        self._waiting += [self._metric(name, value, now, step) for name, value in row.items()]
        if time.monotonic() - self._sent > TOGETHER_S or len(self._waiting) >= MOST_METRICS // 2:
            self._send()

    def transcripts(self, step: int, pages: Sequence[Transcript]) -> None:
        """Some of them as traces, each with its reward as feedback."""
        self._send()
        self._mlflow.set_tracking_uri(self._address)  # which traces have no other way to be told
        for page in pages[: self._traces]:
            trace = self._trace(step, page)
            for name, value in {"reward": page.reward, **page.components}.items():
                source = self._mlflow.entities.AssessmentSource(source_type="CODE", source_id="fettle")
                self._mlflow.log_feedback(trace_id=trace, name=_named(name), value=float(value), source=source)

    def catch_up(self, rows: Sequence[Mapping[str, float]]) -> None:
        """The metrics that it has not."""
        names = {name for row in rows for name in row} - {"step", "time"}
        there = {
            (name, each.step) for name in names for each in self._client.get_metric_history(self.identity, _named(name))
        }
        for row in rows:
            step, moment = int(row["step"]), round(1000 * row["time"])
            lacking = [name for name in names & row.keys() if (name, step) not in there]
            self._waiting += [self._metric(name, row[name], moment, step) for name in lacking]
        self._send()

    def keep(self, files: Sequence[Path], model: Model | None) -> None:
        """As artifacts of the run, and as a version of a registered model."""
        self._send()
        for path in files:
            if path.is_dir():
                self._client.log_artifacts(self.identity, str(path), path.name)
            else:
                self._client.log_artifact(self.identity, str(path))
        if model is not None:
            self._register(model)

    def close(self, *, failed: bool = False) -> None:
        """Finish the run."""
        self._send()
        self._client.set_terminated(self.identity, "FAILED" if failed else "FINISHED")

    def _metric(self, name: str, value: float, moment: int, step: int) -> Any:
        return self._mlflow.entities.Metric(_named(name), float(value), moment, step)

    def _send(self) -> None:
        some, self._waiting, self._sent = self._waiting, [], time.monotonic()
        for at in range(0, len(some), MOST_METRICS):
            self._client.log_batch(self.identity, metrics=some[at : at + MOST_METRICS])

    def _register(self, model: Model) -> None:
        self._client.log_artifacts(self.identity, str(model.path), CHECKPOINT)
        if not self._client.search_registered_models(f"name = '{model.name}'"):
            self._client.create_registered_model(model.name)
        source = f"runs:/{self.identity}/{CHECKPOINT}"
        made = self._client.create_model_version(
            model.name, source, self.identity, tags=dict(model.facts), await_creation_for=0
        )
        if model.alias:
            self._client.set_registered_model_alias(model.name, model.alias, made.version)

    def _trace(self, step: int, page: Transcript) -> str:
        """A conversation, with a span for each turn; its name."""
        root = self._mlflow.start_span_no_context(
            "rollout",
            span_type="AGENT",
            inputs={"messages": [asdict(message) for message in page.messages[:1]]},
            attributes={"step": step, "reward": page.reward, **page.components},
            tags={"task": page.title, "step": str(step), "player": page.player, "ending": page.ending},
            metadata={SOURCE_RUN: self.identity, **({SESSION: page.group} if page.group else {})},
            experiment_id=self._experiment,
        )
        for at, message in enumerate(page.messages):
            if message.role == "assistant":
                self._turn(root, "CHAT_MODEL", page.messages[:at], message)
            elif message.role == "tool":
                self._turn(root, "TOOL", page.messages[at - 1 : at], message)
        root.set_outputs({"answer": page.messages[-1].content, "reward": page.reward, "note": page.note})
        root.end()
        return str(root.trace_id)

    def _turn(self, root: Any, kind: str, before: Sequence[Any], said: Any) -> None:
        span = self._mlflow.start_span_no_context(
            said.role, parent_span=root, span_type=kind, inputs={"messages": [asdict(each) for each in before]}
        )
        span.set_outputs(asdict(said))
        span.end()


def _named(name: str) -> str:
    """As MLflow takes it."""
    return re.sub(r"[^\w\-./: ]", "_", name.replace("@", "_at_"))
