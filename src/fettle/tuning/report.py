"""How a study stands: for people in a table, for programs as JSON and CSV."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.study import Study as OptunaStudy
from optuna.study import create_study
from optuna.trial import FrozenTrial, TrialState

from fettle.config.study import Study
from fettle.intervals import students_interval
from fettle.tracking import write_atomically
from fettle.tuning.folder import StudyFolder
from fettle.tuning.space import Parameters
from fettle.tuning.study import BEST, RECIPE, values_of
from fettle.tuning.trials import AGAIN, FAULT, PLACE, SECONDS, TWIN

STATES = {
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "ended early",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


@dataclass(frozen=True, slots=True)
class Line:
    """One trial."""

    number: int
    state: str
    value: float | None
    """Its score; of one that was ended early, the last on its way."""
    steps: int | None
    """At which that was."""
    seconds: float | None
    folder: str
    """Of its run; empty where it was not run."""
    duplicate_of: int | None
    """The trial whose settings, and so whose score, it has."""
    fault: str
    parameters: Parameters

    @property
    def told(self) -> str:
        """Its state, with what else there is to say of it."""
        if self.duplicate_of is not None:
            return f"as {self.duplicate_of}: {self.state}"
        return f"{self.state}: {self.fault}" if self.fault else self.state


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two that were compared."""

    values: dict[int, float]
    """By seed."""
    mean: float | None
    low: float | None
    high: float | None
    """Of Student's 95 % interval; null where fewer than two seeds came to a score."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How a study stands."""

    lines: tuple[Line, ...]
    best: int | None
    importance: dict[str, float]
    """Of each setting, by PED-ANOVA; they sum to 1. Empty where too few trials tell."""
    sides: dict[str, Side]
    """The best trial's settings and the recipe's own, and the difference of the two, seed by seed."""


def standing(
    study: Study, trials: Sequence[FrozenTrial], best: FrozenTrial | None, finals: Sequence[FrozenTrial]
) -> Standing:
    """Of these trials, the best of them, and the runs that compared it."""
    return Standing(
        lines=tuple(map(line_of, trials)),
        best=None if best is None else best.number,
        importance=_importance(study, trials),
        sides=_sides(finals),
    )


def line_of(trial: FrozenTrial) -> Line:
    """What there is to say of one trial."""
    said = trial.user_attrs
    return Line(
        number=trial.number,
        state="begun again" if AGAIN in said else STATES[trial.state],
        value=trial.value,
        steps=trial.last_step,
        seconds=said.get(SECONDS),
        folder=said.get(PLACE, ""),
        duplicate_of=said.get(TWIN),
        fault=said.get(FAULT, ""),
        parameters=trial.params,
    )


def write_standing(folder: StudyFolder, study: Study, found: Standing) -> None:
    """Leave it as ``study.json`` and ``trials.csv``.

    Raises:
        StorageError: they could not be written.
    """
    told: dict[str, Any] = {"metric": study.metric, "direction": study.direction, **asdict(found)}
    told["trials"] = told.pop("lines")
    write_atomically(folder.summary_path, json.dumps(told, indent=2) + "\n")
    paths = list(study.space)
    page = io.StringIO()
    writer = csv.writer(page, lineterminator="\n")
    writer.writerow(["trial", "state", study.metric, "steps", "seconds", "duplicate_of", "fault", "folder", *paths])
    for line in found.lines:
        values = [line.parameters.get(path) for path in paths]
        facts = [line.number, line.state, line.value, line.steps, line.seconds, line.duplicate_of, line.fault]
        writer.writerow([*facts, line.folder, *values])
    write_atomically(folder.table_path, page.getvalue())


def _importance(study: Study, trials: Sequence[FrozenTrial]) -> dict[str, float]:
    """Of the trials that were carried through, each once."""
    told = [trial for trial in trials if trial.state == TrialState.COMPLETE and TWIN not in trial.user_attrs]
    if len({trial.value for trial in told}) < 2 or len(told) < 4:
        return {}
    scratch: OptunaStudy = create_study(direction=study.direction)
    scratch.add_trials(told)
    return dict(get_param_importances(scratch, evaluator=PedAnovaImportanceEvaluator(target_quantile=0.25)))


def _sides(finals: Sequence[FrozenTrial]) -> dict[str, Side]:
    best, recipe = values_of(finals, BEST), values_of(finals, RECIPE)
    if not best and not recipe:
        return {}
    both = {seed: best[seed] - recipe[seed] for seed in best if seed in recipe}
    return {name: _side(values) for name, values in ((BEST, best), (RECIPE, recipe), ("difference", both))}


def _side(values: dict[int, float]) -> Side:
    if len(values) < 2:
        return Side(values, None, None, None)
    return Side(values, *students_interval(list(values.values())))
