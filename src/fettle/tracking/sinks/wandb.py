"""Weights & Biases. Where it writes, and whether at all over the network, says ``wandb`` itself (``WANDB_MODE``)."""

import importlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fettle.tracking.atomic import write_atomically
from fettle.tracking.base import Transcript
from fettle.tracking.folder import read_object
from fettle.tracking.sinks.base import Described, Model, Sink

KEPT = "wandb.json"
"""In a run's folder: which run of W&B it is."""


def opened(destination: str, run: Described) -> Sink:
    """A run of W&B; ``destination`` is the address of a server of one's own. A resumed run goes on with its own."""
    wandb: Any = importlib.import_module("wandb")
    settings = wandb.Settings(console="off", x_disable_stats=True, x_disable_meta=True, silent=True)
    if destination:
        settings.base_url = destination
    before = read_object(run.kept / KEPT).get("run") if run.kept is not None else None
    made = wandb.init(
        id=before,
        resume="allow",
        project=run.project,
        entity=run.entity or None,
        name=run.name,
        notes=run.description or None,
        tags=run.tags,
        config={**run.settings, **run.facts, "simulated": run.simulated},
        settings=settings,
        dir=os.environ.get("WANDB_DIR"),  # by itself W&B heeds either only the first time in a process
        mode=os.environ.get("WANDB_MODE"),
    )
    if run.kept is not None:
        write_atomically(run.kept / KEPT, json.dumps({"run": made.id, "project": run.project}) + "\n")
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

    def catch_up(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Nothing: it takes no step again, and does not say offline which it has."""

    def keep(self, files: Sequence[Path], model: Model | None) -> None:
        """Nothing: it takes numbers only."""

    def close(self, *, failed: bool = False) -> None:
        """Finish the run."""
        self._run.finish(exit_code=int(failed))
