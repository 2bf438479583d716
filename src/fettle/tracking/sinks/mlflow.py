"""MLflow. The project is an experiment there, tags are tags, settings are parameters."""

import importlib
import os
import time
from collections.abc import Mapping
from typing import Any

from fettle.tracking.sinks.base import Described, Sink

LONGEST = 500
"""Characters of a parameter's value."""
NOTE = "mlflow.note.content"
"""The tag that MLflow shows as a run's description."""

NO_TELEMETRY = "MLFLOW_DISABLE_TELEMETRY"
"""Read as MLflow is imported; by itself it tells its makers of every use."""


def opened(destination: str, run: Described) -> Sink:
    """A run of MLflow at a tracking address; empty: the one that MLflow is set to."""
    os.environ.setdefault(NO_TELEMETRY, "true")
    mlflow: Any = importlib.import_module("mlflow")
    client = mlflow.MlflowClient(tracking_uri=destination or mlflow.get_tracking_uri())
    found = client.get_experiment_by_name(run.project)
    experiment = client.create_experiment(run.project) if found is None else found.experiment_id
    tags = {NOTE: run.description, "entity": run.entity, **dict.fromkeys(run.tags, "true")}
    named = {name: value for name, value in tags.items() if value}
    made = client.create_run(experiment, tags={**named, "simulated": str(run.simulated).lower()}, run_name=run.name)
    parameters = [mlflow.entities.Param(name, str(value)[:LONGEST]) for name, value in run.settings.items()]
    client.log_batch(made.info.run_id, params=parameters)
    return MLflow(client, made.info.run_id, mlflow.entities.Metric)


class MLflow:
    """Satisfies ``Sink``."""

    def __init__(self, client: Any, run: str, metric: Any) -> None:
        self._client = client
        self._run = run
        self._metric = metric

    def log(self, step: int, row: Mapping[str, float]) -> None:
        """A batch of metrics."""
        now = time.time_ns() // 1_000_000
        self._client.log_batch(self._run, metrics=[self._metric(name, value, now, step) for name, value in row.items()])

    def close(self, *, failed: bool) -> None:
        """Finish the run."""
        self._client.set_terminated(self._run, "FAILED" if failed else "FINISHED")
