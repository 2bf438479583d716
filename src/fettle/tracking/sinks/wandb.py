"""Weights & Biases. Where it writes, and whether at all over the network, says ``wandb`` itself (``WANDB_MODE``)."""

import importlib
from collections.abc import Mapping
from typing import Any

from fettle.tracking.sinks.base import Described, Sink


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
        config={**run.settings, "simulated": run.simulated},
        settings=settings,
    )
    return WandB(made)


class WandB:
    """Satisfies ``Sink``."""

    def __init__(self, run: Any) -> None:
        self._run = run

    def log(self, step: int, row: Mapping[str, float]) -> None:
        """A row of its history."""
        self._run.log(dict(row), step=step)

    def close(self, *, failed: bool) -> None:
        """Finish the run."""
        self._run.finish(exit_code=int(failed))
