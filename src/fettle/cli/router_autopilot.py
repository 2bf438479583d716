"""``fettle router autopilot``: one round of training, gate and rollback without a person."""

from pathlib import Path
from typing import Annotated

import typer

from fettle.cli.exits import SWITCHED_OFF
from fettle.cli.recipes import shipped


def autopilot(
    config: Annotated[Path | None, typer.Option("--config", help="Settings; the shipped ones otherwise.")] = None,
    overrides: Annotated[list[str] | None, typer.Argument(help="Settings laid over the file, as a.b=value.")] = None,
) -> None:
    """Look again at what is in use, train another, and promote or roll back by evidence; by default only say so."""
    import torch

    from fettle.config.load import load_as
    from fettle.config.router import RouterConfig
    from fettle.router.autopilot import autopilot as flown
    from fettle.router.autopilot import switches_of
    from fettle.router.observability import observed

    path = config or shipped("policy/rllm.yaml")
    settings = load_as(RouterConfig, path, overrides or ())
    off = switches_of(settings)
    if off:
        typer.echo(f"fettle: nothing was done: {', '.join(off)} {'is' if len(off) == 1 else 'are'} false", err=True)
        raise typer.Exit(SWITCHED_OFF)
    torch.set_num_threads(1)  # as for fettle router train
    with observed(settings) as told:
        steps = flown(settings, told.row, told.spans, stopped=told.stopped)
    for step in steps:
        print(f"{step.what.replace('_', ' ')}: {step.why}")
    if settings.rllm.autopilot.dry_run:
        print("a dry run: nothing was promoted or rolled back; rllm.autopilot.dry_run=false lets it")
