"""Weights & Biases. Where it writes, and whether at all over the network, says ``wandb`` itself (``WANDB_MODE``)."""

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fettle.tracking.base import Transcript
from fettle.tracking.sinks.base import Described, Model, Sink


def opened(destination: str, run: Described) -> Sink:
    """A run of W&B; ``destination`` is the address of a server of one's own."""
    wandb: Any = importlib.import_module("wandb")
    settings = wandb.Settings(console="off", x_disable_stats=True, x_disable_meta=True, silent=True)
    if destination:
        settings.base_url = destination
    made = wandb.init(
        project=run.project,
        entity=run.entity or None,
        name=run.name,
        notes=run.description or None,
        tags=run.tags,
        config={**run.settings, **run.facts, "simulated": run.simulated},
        settings=settings,
    )
    return WandB(made)


class WandB:
    """Satisfies ``Sink``."""

    identity = ""

    def __init__(self, run: Any) -> None:
        self._run = run

    def log(self, step: int, row: Mapping[str, float]) -> None:
        """A row of its history."""
        self._run.log(dict(row), step=step)

    def transcripts(self, step: int, pages: Sequence[Transcript]) -> None:
        """Nothing: it takes numbers only."""

    def keep(self, files: Sequence[Path], model: Model | None) -> None:
        """Nothing: it takes numbers only."""

    def close(self, *, failed: bool = False) -> None:
        """Finish the run."""
        self._run.finish(exit_code=int(failed))
