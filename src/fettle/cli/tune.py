"""``fettle tune``: better settings for a recipe, looked for by trials and compared with its own on several seeds."""

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fettle.cli.exits import INTERRUPTED
from fettle.cli.invoked import FETTLE
from fettle.cli.train import WIDTH, Overrides
from fettle.errors import ConfigError, StateError

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from fettle.cli.crews import Team
    from fettle.cli.studied import Tuning
    from fettle.tuning import Line, Standing


class Phase(StrEnum):
    """What a study does, in this order."""

    TRIALS = "trials"
    FINALS = "finals"


def tune(
    recipe: Annotated[Path | None, typer.Argument(help="A YAML recipe; see configs/.")] = None,
    overrides: Overrides = None,
    study: Annotated[Path | None, typer.Option(help="What is tried, as YAML; see configs/tune/.")] = None,
    resume: Annotated[Path | None, typer.Option(help="The folder of a study to go on with.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="How many run trials at once; by default, as the study says.")
    ] = None,
    only: Annotated[
        Phase | None,
        typer.Option(help="Work on these beside others who do, and leave the rest to whoever began the study."),
    ] = None,
    studies: Annotated[Path, typer.Option(help="Folder that holds the studies' folders.")] = Path("studies"),
) -> None:
    """Try other settings of a recipe, and compare the best of them with its own on several seeds."""
    if resume is not None and (recipe is not None or overrides or study is not None):
        raise ConfigError("a resumed study keeps its own recipe and settings: give --resume FOLDER and nothing else")
    if resume is None and (recipe is None or study is None):
        raise ConfigError("name a recipe and a study (fettle tune recipe.yaml --study study.yaml), or --resume FOLDER")
    tuning = _tuning(recipe, overrides or [], study, resume, studies)
    if only is None:
        with _team(tuning, workers) as team:
            _carry_out(tuning, team)
    elif not tuning.work(only, say):
        raise typer.Exit(INTERRUPTED)


def _tuning(
    recipe: Path | None, overrides: list[str], study: Path | None, resume: Path | None, studies: Path
) -> "Tuning":
    """The study, begun or gone on with."""
    try:
        from fettle.cli.studied import Tuning
        from fettle.tuning import StudyFolder
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("fettle"):
            raise
        raise ConfigError(
            f"fettle tune needs the package {error.name}, which is not installed: pip install 'fettle[tune]'"
        ) from error
    if recipe is None or study is None:
        return Tuning.at(StudyFolder.open(resume or Path()))
    return Tuning.begun(studies, recipe, overrides, study)


@contextmanager
def _team(tuning: "Tuning", count: int | None) -> "Iterator[Team | None]":
    """Who runs the trials; None: this process."""
    from fettle.cli.crews import Processes
    from fettle.config.study import RayTasks

    workers = tuning.desk.study.workers
    workers = workers if count is None else workers.model_copy(update={"count": count})
    if not isinstance(workers, RayTasks):
        yield Processes(tuning.folder, workers.count) if workers.count > 1 else None
        return
    try:
        from fettle.cli.crews_on_ray import ray_team
    except ModuleNotFoundError as error:
        raise ConfigError(
            "workers of type ray need the package ray, which is not installed: pip install 'fettle[cluster]'"
        ) from error
    with ray_team(tuning.folder, workers) as team:
        yield team


def _carry_out(tuning: "Tuning", team: "Team | None") -> None:
    """Both phases, and the report."""
    again = f"{FETTLE} tune --resume {shlex.quote(str(tuning.folder.path))}"
    print(f"study in {tuning.folder.path}: {tuning.desk.study.trials} trials", file=sys.stderr)
    found = tuning.standing()
    for phase in Phase:
        try:
            done = tuning.work(phase, say) if team is None else tuning.share(phase, team, say)
        except StateError as error:
            raise StateError(f"{error.message}; go on with: {again}") from error
        finally:
            found = tuning.standing()
        if not done:
            print(f"fettle: stopped, and what was found is kept; go on with: {again}", file=sys.stderr)
            raise typer.Exit(INTERRUPTED)
    _print(tuning, found)
    tuning.end(found)


def say(trial: "FrozenTrial") -> None:
    """A line as a trial ends."""
    from fettle.tuning import line_of

    line = line_of(trial)
    score = "" if line.value is None else f"  {_shown(line.value)}"
    settings = "  ".join(f"{path.rpartition('.')[2]}={_shown(value)}" for path, value in line.parameters.items())
    print(f"trial {line.number:3}{score}  {settings}  {line.told}", file=sys.stderr)


def _print(tuning: "Tuning", found: "Standing") -> None:
    """The trials, the comparison, and where everything is."""
    from rich.console import Console
    from rich.table import Table

    study, output = tuning.desk.study, Console(highlight=False, width=WIDTH)
    table = Table(title=f"{study.metric}, to {study.direction}")
    for column in ("trial", study.metric, "step", "seconds", *study.space):
        table.add_column(column, justify="right")
    table.add_column("what became of it")
    for line in found.lines:
        table.add_row(
            *_cells(line, list(study.space)), f"{line.told}, the best" * (line.number == found.best) or line.told
        )
    output.print(table)
    sides = Table(title=f"{study.metric} on seeds {', '.join(map(str, study.seeds))}")
    sides.add_column("settings")
    for column in ("mean", "95 % interval", *(f"seed {seed}" for seed in study.seeds)):
        sides.add_column(column, justify="right")
    names = {"best": f"those of trial {found.best}", "recipe": "the recipe's own", "difference": "difference"}
    for name, side in found.sides.items():
        interval = "" if side.low is None else f"{_shown(side.low)} to {_shown(side.high)}"
        sides.add_row(names[name], _shown(side.mean), interval, *(_shown(side.values.get(s)) for s in study.seeds))
    output.print(sides)
    for path in (tuning.folder.chart_path, tuning.folder.table_path, tuning.folder.summary_path):
        print(path)


def _cells(line: "Line", paths: list[str]) -> list[str]:
    seconds = "" if line.seconds is None else f"{line.seconds:.1f}"
    values = [_shown(line.parameters[path]) if path in line.parameters else "" for path in paths]
    return [str(line.number), _shown(line.value), _shown(line.steps), seconds, *values]


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)
