"""Where a run's metrics go besides its folder. None is on by itself, and most need an extra."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from fettle.config.base import Frozen
from fettle.config.remote import host_and_port


class Registration(Frozen):
    """A version in a model registry."""

    name: Annotated[str, Field(min_length=1)]
    """Of the registered model, made if it is not there."""
    alias: str | None = None
    """Given to the new version, and taken from the one that had it; null gives none."""
    checkpoint: Literal["newest", "best"] = "newest"
    """Which of the run's checkpoints it is."""


class MLflow(Frozen):
    """A run of MLflow: settings, metrics, what is in the run's folder, and conversations as traces."""

    type: Literal["mlflow"] = "mlflow"
    uri: str | None = None
    """The tracking server (``http://host:5000``) or database (``sqlite:///mlflow.db``); null: MLflow's own choice."""
    experiment: Annotated[str, Field(min_length=1)] = "fettle"
    """Under which runs are filed."""
    traces: Annotated[int, Field(ge=0)] = 4
    """Conversations of each evaluation that are sent as traces, turn by turn, with their rewards."""
    registration: Registration | None = None
    """Register a checkpoint when the run has finished; null registers none."""
    parent: str | None = None
    """The run of MLflow that this one is nested under; a study gives its trials its own."""


class WandB(Frozen):
    """A run of Weights & Biases; ``WANDB_MODE=offline`` keeps it on this machine."""

    type: Literal["wandb"] = "wandb"
    project: Annotated[str, Field(min_length=1)] = "fettle"
    """Under which runs are filed."""
    entity: str | None = None
    """Whose they are; null: the key's own."""
    url: str | None = None
    """A server of one's own; null: W&B's."""


class TensorBoard(Frozen):
    """Files of events for TensorBoard."""

    type: Literal["tensorboard"] = "tensorboard"
    folder: str | None = None
    """In which each run has a folder; null: in the run's own."""


class Prometheus(Frozen):
    """A page of the newest numbers, for Prometheus to read while the run goes on."""

    type: Literal["prometheus"] = "prometheus"
    address: Annotated[str, AfterValidator(host_and_port)] = "127.0.0.1:9464"
    """Host and port of the page."""


class OTLP(Frozen):
    """Numbers and conversations for a collector of OpenTelemetry."""

    type: Literal["otlp"] = "otlp"
    endpoint: str = "http://127.0.0.1:4318"
    """The collector."""
    protocol: Literal["http", "grpc"] = "http"
    """How it is spoken to."""


def _agent(address: str) -> str:
    return address if address.startswith("unix:///") else host_and_port(address)


class Datadog(Frozen):
    """Gauges for an agent of Datadog, by DogStatsD. What it does not receive is lost to it."""

    type: Literal["datadog"] = "datadog"
    address: Annotated[str, AfterValidator(_agent)] = "127.0.0.1:8125"
    """Of the agent: host and port, or its socket (``unix:///var/run/datadog/dsd.socket``)."""
    tags: tuple[str, ...] = ()
    """Beside those of the run, as in ``team:search``."""


class Events(Frozen):
    """Events for a program of one's own: ``start``, ``metrics`` and ``end``, posted as JSON, one after the other."""

    type: Literal["events"] = "events"
    url: Annotated[str, Field(pattern="^https?://.")]
    """Where they are posted: ``http://127.0.0.1:9000/fettle``."""


TrackerConfig = Annotated[
    MLflow | WandB | TensorBoard | Prometheus | OTLP | Datadog | Events, Field(discriminator="type")
]
"""Somewhere that takes a run's metrics."""
