"""Events: that a run begins, each of its rows, and that it has ended, posted to whoever subscribed, in that order."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from fettle.errors import ConfigError
from fettle.tracking.base import Transcript
from fettle.tracking.sinks.base import Described, Model, Sink

SECONDS = 10.0
"""In which a subscriber must answer."""


def opened(destination: str, run: Described) -> Sink:
    """A subscriber at an address of HTTP, which hears at once that the run begins."""
    if httpx.URL(destination).scheme not in ("http", "https"):
        raise ConfigError(f"{destination!r} is no address of a subscriber: write it as http://HOST/PATH")
    return Events(destination, run)


class Events:
    """Satisfies ``Sink``. One event is posted after the other: the next once the one before was taken."""

    identity = ""

    def __init__(self, address: str, run: Described) -> None:
        self._address = address
        self._run = run.name
        self._count = 0
        self._client = httpx.Client(timeout=SECONDS)
        self._post("start", project=run.project, settings=dict(run.settings), facts=dict(run.facts))

    def log(self, step: int, row: Mapping[str, float]) -> None:
        """``metrics``: what JSON has no word for, as NaN, is null."""
        self._post("metrics", step=step, row={name: _said(value) for name, value in row.items()})

    def transcripts(self, step: int, pages: Sequence[Transcript]) -> None:
        """Nothing: it is told of numbers only."""

    def catch_up(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Nothing: what is past is no event."""

    def keep(self, files: Sequence[Path], model: Model | None) -> None:
        """Nothing: it is told of numbers only."""

    def close(self, *, failed: bool = False) -> None:
        """``end``, with whether the run came to grief."""
        try:
            self._post("end", failed=failed)
        finally:
            self._client.close()

    def _post(self, event: str, **more: Any) -> None:
        self._count += 1
        told = {"event": event, "run": self._run, "number": self._count, **more}
        self._client.post(self._address, json=told).raise_for_status()


def _said(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
