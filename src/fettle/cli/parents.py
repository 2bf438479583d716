"""A study in MLflow: a run of its own, under which its trials are nested, and which has the result in the end."""

import logging
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from fettle.cli.models import stages_of
from fettle.config import MLflow, RunConfig
from fettle.config.study import Study
from fettle.errors import FettleError
from fettle.tracking.sinks import Described, Sink, open_sink
from fettle.tuning import Standing, StudyFolder

logger = logging.getLogger(__name__)

PARENTS = "mlflow"
"""Within a study's folder: which runs of MLflow are the study."""


def adopted(recipe: RunConfig, study: Study, folder: StudyFolder) -> list[str]:
    """Overrides that nest the runs of a recipe under a run for the study, which is begun; none without MLflow.

    Raises:
        ConfigError: MLflow is not installed.
        StorageError: it cannot be reached.
    """
    changed = []
    for prefix, tracker in _trackers(recipe):
        changed.append(f"{prefix}.parent={_opened(tracker, study, folder).identity}")
    return changed


def told_the_end(recipe: RunConfig, study: Study, folder: StudyFolder, found: Standing) -> None:
    """Hand the study's own runs what came of it, and end them; what cannot be reached is told of in the log."""
    best = next((line for line in found.lines if line.number == found.best), None)
    row = (
        {}
        if best is None or best.value is None
        else {f"search/{study.metric}": best.value, "search/trial": best.number}
    )
    for name, side in found.sides.items():
        row |= {f"{name}/{study.metric}": side.mean} if side.mean is not None else {}
    files = [path for path in _left(folder) if path.is_file()]
    for sink in {sink.identity: sink for sink in _reached(recipe, study, folder)}.values():
        sink.log(len(found.lines), row)
        sink.keep(files, None)
        sink.close()


def _reached(recipe: RunConfig, study: Study, folder: StudyFolder) -> Iterator[Sink]:
    for _, tracker in _trackers(recipe):
        try:
            yield _opened(tracker, study, folder)
        except FettleError as error:
            logger.warning("%s; it is not told how the study ended, and the study's folder has all", error.message)


def _left(folder: StudyFolder) -> Sequence[Path]:
    return (folder.chart_path, folder.table_path, folder.summary_path, folder.study_path, folder.recipe_path)


def _trackers(recipe: RunConfig) -> list[tuple[str, MLflow]]:
    """Where a recipe names MLflow, and how."""
    stages = stages_of(recipe)
    named = (
        (f"stages.{at}.trackers.{index}" if recipe.type == "pipeline" else f"trackers.{index}", tracker)
        for at, stage in enumerate(stages)
        for index, tracker in enumerate(stage.trackers)
    )
    return [(prefix, tracker) for prefix, tracker in named if isinstance(tracker, MLflow)]


def _opened(tracker: MLflow, study: Study, folder: StudyFolder) -> Sink:
    """The study's run where a tracker leads: the same one for all that lead to the same experiment."""
    kept = folder.path / PARENTS / tracker.experiment
    kept.mkdir(parents=True, exist_ok=True)
    settings = chain(study.model_dump(exclude={"space"}).items(), study.space.items())
    told = Described(
        name=folder.path.name,
        description=f"A study of {study.metric}, to {study.direction}.",
        tags=("study",),
        project=tracker.experiment,
        entity="",
        settings=dict(settings),
        simulated=False,
        facts={"fettle.folder": str(folder.path.resolve())},
        kept=kept,
    )
    return open_sink("mlflow", tracker.uri or "", told)
