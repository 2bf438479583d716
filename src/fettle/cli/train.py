"""``fettle train``: carry out a recipe, or go on with a run that was cut short."""

import asyncio
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fettle.cli.exits import INTERRUPTED
from fettle.cli.invoked import FETTLE
from fettle.errors import ConfigError, FettleError

if TYPE_CHECKING:
    from fettle.config import RunConfig
    from fettle.tracking import RunFolder
    from fettle.training import Summary

WIDTH = 1000
"""Characters, more than any table has."""

Overrides = Annotated[list[str] | None, typer.Argument(help="Settings laid over the recipe, as a.b=value.")]
Device = Annotated[Literal["cpu", "cuda", "mps"] | None, typer.Option(help="engine.device of every stage.")]
GPUs = Annotated[str | None, typer.Option(help="engine.gpu_ids of every stage, as 0,1.")]
Runs = Annotated[Path, typer.Option(help="Folder that holds the run folders.")]


def train(
    recipe: Annotated[Path | None, typer.Argument(help="A YAML recipe; see configs/.")] = None,
    overrides: Overrides = None,
    resume: Annotated[Path | None, typer.Option(help="A run folder to go on with.")] = None,
    runs: Runs = Path("runs"),
    engine: Annotated[
        Literal["local", "ray", "launched"] | None,
        typer.Option(help="Where every stage is computed: engine.type of the recipe."),
    ] = None,
    device: Device = None,
    gpu_ids: GPUs = None,
) -> None:
    """Train as a recipe says: supervised, by reinforcement, or several stages in a row."""
    from fettle.cli.launching import launched
    from fettle.config.load import load
    from fettle.tracking import RunFolder

    if resume is not None:
        if recipe is not None or overrides or engine or device or gpu_ids:
            raise ConfigError("a resumed run keeps its own recipe: give --resume FOLDER and nothing else")
        folder = RunFolder.open(resume)
        with launched(load(folder.config_path)):
            _go_on(folder)
    elif recipe is not None:
        config = load(
            recipe, [*(overrides or ()), *computed(recipe, type=engine, device=device, gpu_ids=listed(gpu_ids))]
        )
        with launched(config) as led:
            before = None if led is None else led.before()
            if before is not None:
                _go_on(RunFolder.open(before))
            else:
                finish(*new_run(runs, config, begun=None if led is None else led.at))
    else:
        raise ConfigError("name a recipe (fettle train configs/arithmetic-grpo.yaml), or a run with --resume FOLDER")


def computed(recipe: Path, **settings: str | None) -> list[str]:
    """What flags lay over the engine of a recipe, of one stage or several."""
    if not any(settings.values()):
        return []
    from fettle.config.load import stages_written

    keys = [f"stages.{number}.engine" for number in range(stages_written(recipe))] or ["engine"]
    return [f"{key}.{name}={value}" for key in keys for name, value in settings.items() if value is not None]


def listed(gpu_ids: str | None) -> str | None:
    """GPUs as a list of YAML's."""
    return None if gpu_ids is None else f"[{gpu_ids}]"


def _go_on(folder: "RunFolder") -> None:
    """Carry out what is left of a run."""
    from fettle.config.load import load

    if _finished(folder):
        print(f"the run in {folder.path} is finished, and nothing is left to do\n{_further(folder)}")
        return
    from fettle.cli import build  # only now: torch takes seconds, and a slip in a recipe should be told at once

    finish(folder, asyncio.run(build.run(load(folder.config_path), folder, begun=True)))


def new_run(
    runs: Path, config: "RunConfig", *, begun: Callable[[Path], None] | None = None
) -> "tuple[RunFolder, list[Summary]]":
    """Carry out a recipe in a new folder, of which nothing is left where the run could not begin.

    Where that is, is told to ``begun``.
    """
    from fettle.cli import build

    folder = build.new_folder(runs, config)
    if begun is not None:
        begun(folder.path)
    try:
        return folder, asyncio.run(build.run(config, folder))
    except (FettleError, OSError) as error:
        folder.discard_unbegun()
        # A recipe stays as it is when its run is resumed, so that a wrong setting would fail again.
        if isinstance(error, FettleError) and not isinstance(error, ConfigError) and folder.path.exists():
            raise type(error)(f"{error.message}; when that is mended, go on with: {_resumption(folder)}") from error
        raise


def finish(folder: "RunFolder", summaries: "Sequence[Summary]") -> None:
    """Say how a run ended, and what to type next; one that was interrupted ends with an exit code of its own."""
    last = summaries[-1]
    if last.interrupted:
        again = _resumption(folder)
        print(f"fettle: stopped after step {last.steps} of {last.folder.name}; go on with: {again}", file=sys.stderr)
        raise typer.Exit(INTERRUPTED)
    _print_table(folder)
    steps, seconds = sum(summary.steps for summary in summaries), sum(summary.seconds for summary in summaries)
    print(f"finished {steps} steps in {seconds:.0f} s\n{_further(folder)}")


def _resumption(folder: "RunFolder") -> str:
    """What to type to go on with a run."""
    return f"{FETTLE} train --resume {shlex.quote(str(folder.path))}"


def _print_table(folder: "RunFolder") -> None:
    """What a pipeline's stages did; nothing for a single run."""
    from rich.console import Console
    from rich.table import Table

    from fettle.tracking import stages_table

    head, *lines = stages_table(folder) or [()]
    if not lines:
        return
    table = Table(title="Held out, never trained on")
    for column in head:
        table.add_column(column, justify="left" if column in ("stage", "held out", "left") else "right", no_wrap=True)
    for place, line in enumerate(lines, start=1):
        table.add_row(*line, end_section=place < len(lines) and bool(lines[place][0]))
    # Wider than a narrow terminal rather than cropped: these are the numbers that everything was done for.
    Console(highlight=False, width=WIDTH).print(table)


def _finished(folder: "RunFolder") -> bool:
    from fettle.tracking import list_runs

    there = folder.path.resolve()
    return any(run.name == there.name and run.status == "finished" for run in list_runs(there.parent))


def _further(folder: "RunFolder") -> str:
    from fettle.config.load import load

    where = shlex.quote(str(folder.path))
    if load(folder.config_path).type == "reward_model":
        use = f"learn from it: reward_model.model={where} in a recipe of type rl"
    else:
        use = f"try it out:    {FETTLE} sample {where} 'A question'"
    return f"what happened: {folder.report_path}\n{use}"
