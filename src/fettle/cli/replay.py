"""``fettle replay``: carry out one recorded step once more, and compare the figures."""

from pathlib import Path
from typing import Annotated

import typer

from fettle.cli.exits import FAILED


def replay(
    state: Annotated[Path, typer.Argument(help="The state folder of a service, its journal, or a copy of either.")],
    step: Annotated[int, typer.Option(min=1, help="The optimizer step: the version of the weights that it made.")],
    run: Annotated[str | None, typer.Option(help="Which run, where there are several.")] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads for arithmetic; as many as were recorded by default.")
    ] = None,
) -> None:
    """Carry out one recorded step of a run once more, from the journal alone, and compare losses, norm and metrics.

    Exits with 1 where a figure differs in any bit.
    """
    from fettle.broker.replay import Recording

    recording = Recording(state)
    chosen = recording.run(run)

    import tempfile

    from rich.console import Console
    from rich.table import Table

    from fettle.config import LocalEngine
    from fettle.engine.local import LocalBackend

    table = Table(title=f"Step {step} of {chosen}")
    for column in ("call", "kind", "figure"):
        table.add_column(column)
    for column in ("recorded", "replayed", ""):
        table.add_column(column, justify="right")
    differing = 0
    with tempfile.TemporaryDirectory() as scratch:
        settings = LocalEngine(threads=threads or recording.threads or None)
        for each in recording.replayed(chosen, step, LocalBackend(settings, checkpoints=Path(scratch))):
            differing += not each.same
            found = (f"{each.recorded!r}", f"{each.found!r}", "same" if each.same else "DIFFERS")
            table.add_row(each.operation, each.kind, each.figure, *found)
    console = Console(width=None if Console().is_terminal else 160)
    console.print(table)
    console.print(f"{differing} of {table.row_count} figures differ" if differing else "every figure is the same")
    if differing:
        raise typer.Exit(FAILED)
