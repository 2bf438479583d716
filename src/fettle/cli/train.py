"""``fettle train``: carry out a recipe, or go on with a run that was cut short."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fettle.errors import ConfigError

if TYPE_CHECKING:
    from fettle.tracking import RunFolder
    from fettle.training import Summary

Overrides = Annotated[list[str] | None, typer.Argument(help="Settings laid over the recipe, as a.b=value.")]
Runs = Annotated[Path, typer.Option(help="Folder that holds the run folders.")]


def train(
    recipe: Annotated[Path | None, typer.Argument(help="A YAML recipe; see configs/.")] = None,
    overrides: Overrides = None,
    resume: Annotated[Path | None, typer.Option(help="A run folder to go on with.")] = None,
    runs: Runs = Path("runs"),
) -> None:
    """Train as a recipe says: supervised, by reinforcement, or several stages in a row."""
    from fettle.cli import build
    from fettle.config.load import load
    from fettle.tracking import RunFolder

    if resume is not None:
        if recipe is not None or overrides:
            raise ConfigError("a resumed run keeps its own recipe: give --resume FOLDER and nothing else")
        folder = RunFolder.open(resume)
        config = load(folder.config_path)
    elif recipe is not None:
        config = load(recipe, overrides or ())
        folder = build.new_folder(runs, config)
    else:
        raise ConfigError("name a recipe (fettle train configs/arithmetic-grpo.yaml), or a run with --resume FOLDER")
    finish(folder, asyncio.run(build.run(config, folder)))


def finish(folder: "RunFolder", summaries: "Sequence[Summary]") -> None:
    """Say how a run ended; one that was interrupted ends with exit code 130 and the way to go on.

    Raises:
        KeyboardInterrupt: it was interrupted.
    """
    if summaries[-1].interrupted:
        print(f"stopped after step {summaries[-1].steps}; go on with: fettle train --resume {folder.path}")
        raise KeyboardInterrupt
    for summary in summaries:
        print(f"{summary.folder}: {summary.steps} steps in {summary.seconds:.0f} s, checkpoint {summary.checkpoint}")
