"""The trackers of a recipe, opened for a run and closed with it: what each is told of the run, and what it keeps."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fettle.config import (
    OTLP,
    Datadog,
    Events,
    MLflow,
    Prometheus,
    Registration,
    ServiceEngine,
    StageConfig,
    TensorBoard,
    TrackerConfig,
    WandB,
)
from fettle.config.load import leaves
from fettle.engine.local.checkpoint import digest
from fettle.errors import ConfigError, FettleError
from fettle.tracking import RunFolder
from fettle.tracking.sinks import Described, Model, Sink, open_sink
from fettle.training import Summary

logger = logging.getLogger(__name__)

DESTINATIONS: Mapping[type, Callable[[Any, RunFolder], str | None]] = MappingProxyType(
    {
        MLflow: lambda tracker, _: tracker.uri,
        WandB: lambda tracker, _: tracker.url,
        TensorBoard: lambda tracker, folder: tracker.folder or str(folder.path / "tensorboard"),
        Prometheus: lambda tracker, _: tracker.address,
        OTLP: lambda tracker, _: f"{'grpc:' if tracker.protocol == 'grpc' else ''}{tracker.endpoint}",
        Datadog: lambda tracker, _: tracker.address,
        Events: lambda tracker, _: tracker.url,
    }
)
"""Where each writes."""
KEPT = ("mlflow.json", "wandb.json")
"""Which run it is elsewhere."""
LEFT_OUT = ("checkpoints", "model", "tensorboard")
"""Of a run's folder, what is no artifact: weights are kept where they are registered."""


class Outlets:
    """A run's trackers, while they are open."""

    def __init__(self, opened: Sequence[tuple[TrackerConfig, Sink]], folder: RunFolder) -> None:
        self._opened = opened
        self._folder = folder
        self.failed = True
        """Until the run is said to have finished."""

    @property
    def sinks(self) -> list[Sink]:
        """What takes rows and conversations."""
        return [sink for _, sink in self._opened]

    def keep(self, summary: Summary) -> None:
        """Hand over what a finished run has left; one that was interrupted keeps it for when it goes on."""
        if summary.interrupted:
            return
        self.failed = False
        files = [path for path in sorted(self._folder.path.iterdir()) if path.name not in LEFT_OUT]
        shown = [path for path in files if not path.name.startswith(".") and path.name not in KEPT]
        for tracker, sink in self._opened:
            registered = tracker.registration if isinstance(tracker, MLflow) else None
            sink.keep(shown, None if registered is None else _model(registered, self._folder, summary))


@contextmanager
def outlets(config: StageConfig, folder: RunFolder, *, begun: bool) -> Iterator[Outlets]:
    """The trackers of a run, open until the block ends.

    One that cannot be opened for what has ``begun`` already is told of in the log, and left out.

    Raises:
        ConfigError: a package is not installed, or there is nothing here to be registered.
        StorageError: one cannot be opened.
    """
    opened: list[tuple[TrackerConfig, Sink]] = []
    found = Outlets(opened, folder)
    try:
        for at, tracker in enumerate(config.trackers):
            if (
                isinstance(tracker, MLflow)
                and tracker.registration is not None
                and isinstance(config.engine, ServiceEngine)
            ):
                raise ConfigError(
                    f"trackers.{at}.registration asks for a checkpoint, which the service keeps: leave it out"
                )
            place = DESTINATIONS[type(tracker)](tracker, folder) or ""
            try:
                opened.append((tracker, open_sink(tracker.type, place, described(tracker, config, folder))))
            except FettleError as error:
                if not begun:
                    raise
                logger.warning("%s; %s goes on without it, and its folder has all", error.message, folder.path.name)
        yield found
    finally:
        for _, sink in reversed(opened):
            sink.close(failed=found.failed)


def described(tracker: TrackerConfig, config: StageConfig, folder: RunFolder) -> Described:
    """What a tracker is told of a run."""
    of_a_pipeline = RunFolder(folder.path.parent).config_path.is_file()
    mlflow = tracker if isinstance(tracker, MLflow) else None
    return Described(
        name=f"{folder.path.parent.name}.{folder.path.name}" if of_a_pipeline else folder.path.name,
        description="",
        tags=tracker.tags if isinstance(tracker, Datadog) else (),
        project=_project(tracker),
        entity=(tracker.entity or "") if isinstance(tracker, WandB) else "",
        settings={path: value for path, _, _, value in leaves(config)},
        simulated=False,
        facts=facts(folder),
        kept=folder.path,
        parent=(mlflow.parent or "") if mlflow is not None else "",
        traces=mlflow.traces if mlflow is not None else 0,
    )


def facts(folder: RunFolder) -> dict[str, str]:
    """Where a run comes from: enough to find it, and to run it again."""
    launch = folder.launches()[-1]
    source = launch["source"]["fettle"] or launch["source"]["working_folder"] or {}
    told = {
        "folder": str(folder.path.resolve()),
        "command": " ".join(launch["command"]),
        "started": launch["started"],
        "commit": source.get("commit", ""),
        "dirty": str(source.get("dirty", "")).lower(),
        "platform": launch["platform"],
        **{f"version.{name}": version for name, version in launch["versions"].items() if version},
        **{f"sha256.{Path(name).name}": value for name, value in launch["data"].items() if value},
    }
    return {f"fettle.{name}": value for name, value in told.items() if value}


def _project(tracker: TrackerConfig) -> str:
    if isinstance(tracker, MLflow):
        return tracker.experiment
    return tracker.project if isinstance(tracker, WandB) else "fettle"


def _model(registered: Registration, folder: RunFolder, summary: Summary) -> Model:
    path = Path(summary.best_checkpoint if registered.checkpoint == "best" else summary.checkpoint)
    told = {**facts(folder), "fettle.digest": digest(path), "fettle.checkpoint": path.name}
    return Model(path, registered.name, registered.alias or "", told)
