"""Fettle's own loops, run in process from a recipe, and timed step by step as TRL's are."""

import asyncio
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from benchmarks.harness import Settings
from fettle.cli import build
from fettle.config import RunConfig
from fettle.training import Summary

NEVER = 1_000_000
"""Steps between evaluations or checkpoints that are none of the work."""


class StepTimer:
    """Seconds from the end of one step to the end of the next; evaluations stop the clock.

    Satisfies ``Callback``.
    """

    def __init__(self, after: Callable[[int, float, float], bool] | None = None) -> None:
        """``after`` is told the steps done, the seconds so far and the held-out score; True ends the run."""
        self.seconds: list[float] = []
        self.rows: list[Mapping[str, float]] = []
        self._after = after
        self._since = 0.0

    def after_step(self, step: int, row: Mapping[str, float]) -> bool:
        """One step is done."""
        self.seconds.append(time.perf_counter() - self._since)
        self.rows.append(row)
        self._since = time.perf_counter()
        return False

    def after_evaluation(self, step: int, score: float, row: Mapping[str, float]) -> bool:
        """Whatever happened since the step was none of the work."""
        ends = self._after is not None and self._after(step, sum(self.seconds), score)
        self._since = time.perf_counter()
        return ends


def carried_out(recipe: Mapping[str, Any], *callbacks: Any, root: Path | None = None) -> list[Summary]:
    """Run a recipe as ``fettle train`` does."""
    config: RunConfig = TypeAdapter(RunConfig).validate_python(recipe)
    with tempfile.TemporaryDirectory() as scratch:
        folder = build.new_folder(root or Path(scratch), config)
        return asyncio.run(build.run(config, folder, callbacks=callbacks))


def common(settings: Settings, model: str, *, steps: int, rate: float) -> dict[str, Any]:
    """What every recipe here says."""
    return {
        "policy": {"model": model, "precision": settings.precision},
        "engine": {"device": settings.device, "threads": settings.threads},
        "steps": steps,
        "optimizer": {"learning_rate": rate},
        "checkpoints": {"every": NEVER},
    }
