"""``fettle pipeline``: several stages in a row, and at the end one table of what each of them did."""

from pathlib import Path
from typing import Annotated

import typer

from fettle.cli.train import Overrides, Runs, train
from fettle.errors import ConfigError


def pipeline(
    recipe: Annotated[Path | None, typer.Argument(help="A YAML recipe of several stages; see configs/.")] = None,
    overrides: Overrides = None,
    resume: Annotated[Path | None, typer.Option(help="The folder of a pipeline to go on with.")] = None,
    runs: Runs = Path("runs"),
) -> None:
    """Train stage by stage, each going on from what earlier ones left; ends with a table of held-out scores."""
    _check_stages(recipe, overrides or [], resume)
    train(recipe, overrides, resume, runs)


def _check_stages(recipe: Path | None, overrides: list[str], resume: Path | None) -> None:
    """Refuses a recipe of a single run."""
    from fettle.config import Pipeline
    from fettle.config.load import load
    from fettle.tracking import RunFolder

    path = RunFolder.open(resume).config_path if resume is not None else recipe
    if path is None:
        raise ConfigError(
            "name a recipe (fettle pipeline configs/rlhf-three-stage.yaml), or a pipeline with --resume FOLDER"
        )
    config = load(path, overrides if resume is None else ())
    if not isinstance(config, Pipeline):
        raise ConfigError(f"{path} is a single run of type {config.type}, with no stages: use fettle train")
