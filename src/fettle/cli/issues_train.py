"""``fettle issues train``: a recipe out of problems or attempts at them, written down and carried out."""

from pathlib import Path
from typing import Annotated

import typer

from fettle.cli.exits import INTERRUPTED
from fettle.cli.recipes import shipped
from fettle.cli.train import Overrides

RECIPE = "issues.yaml"
OUTPUT, BENCHMARKS = Path("data/rllm"), Path("data/benchmarks")


def train(
    overrides: Overrides = None,
    config: Annotated[Path | None, typer.Option("--config", help="Settings in JSON, by documented names.")] = None,
    benchmark_id: Annotated[str | None, typer.Option(help="A benchmark, whose attempts are learned from.")] = None,
    train_path: Annotated[Path | None, typer.Option(help="Problems, or lines of the data set, to train on.")] = None,
    val_path: Annotated[Path | None, typer.Option(help="The same, held out.")] = None,
    repository: Annotated[Path | None, typer.Option(help="Where problems are tested that do not tell.")] = None,
    output_dir: Annotated[Path, typer.Option(help="For the data, the recipe and the run.")] = OUTPUT,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the data, of each stage.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Sequences of one optimizer step.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Of each stage.")] = None,
    checkpoint_interval: Annotated[
        int | None, typer.Option(min=1, help="Passes over the data between checkpoints.")
    ] = None,
    early_stopping: Annotated[bool, typer.Option("--early-stopping", help="End when nothing gets better.")] = False,
    early_stop_patience: Annotated[int | None, typer.Option(min=1, help="Evaluations without it.")] = None,
    mlflow: Annotated[bool | None, typer.Option("--mlflow/--no-mlflow", help="Tell MLflow the numbers.")] = None,
    experiment_name: Annotated[str | None, typer.Option(help="In MLflow, rllm_training by default.")] = None,
    run_name: Annotated[str | None, typer.Option(help="First part of the run folder's name.")] = None,
    benchmarks: Annotated[Path, typer.Option(help="Folder that holds the benchmarks.")] = BENCHMARKS,
    verbose: Annotated[bool, typer.Option("--verbose", help="Print the recipe before it is carried out.")] = False,
    sample_config: Annotated[
        bool, typer.Option("--sample-config", help="Write every setting to config.json, and end.")
    ] = False,
    distributed: Annotated[bool, typer.Option("--distributed", help="By ranks on Ray, as distributed says.")] = False,
    tune_hyperparameters: Annotated[
        bool, typer.Option("--tune-hyperparameters", help="Try other settings: a study.")
    ] = False,
    n_trials: Annotated[int | None, typer.Option(min=1, help="Of the study, 10 by default.")] = None,
    kubernetes: Annotated[bool, typer.Option("--kubernetes", help="Refused: this trains here.")] = False,
) -> None:
    """Show a model how problems were solved, then have it learn on them: configs/issues.yaml with other settings."""
    given = locals()

    import asyncio

    from fettle.compat.rllm.flags import Flags, carried_out, settings
    from fettle.compat.rllm.recipe import recipe_base

    flags = Flags(**{**given, "overrides": overrides or ()})
    documented = settings(flags, {})
    base = recipe_base(shipped(RECIPE), documented)
    try:
        trained = asyncio.run(carried_out(flags, documented, base, print))
    except KeyboardInterrupt as interrupted:
        raise typer.Exit(INTERRUPTED) from interrupted
    if trained is not None:
        print(f"made: {trained}")
