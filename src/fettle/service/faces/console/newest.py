"""The newest rows of a file that only grows, without reading the rest of it."""

import json
from pathlib import Path
from typing import Any

from fettle.service.told import FOLDER, METRICS

TAIL = 64 * 1024
"""Bytes that are looked at."""


def newest_metrics(state: Path, run_id: str) -> list[dict[str, Any]]:
    """The last rows of a run's metrics, oldest first; none where none were told."""
    try:
        with (state / FOLDER / run_id / METRICS).open("rb") as file:
            length = file.seek(0, 2)
            file.seek(max(0, length - TAIL))
            lines = file.read().split(b"\n")
    except FileNotFoundError:
        return []
    # Of the first line the beginning may be cut off, and of the last the end may not be written yet.
    whole = lines[:-1] if length <= TAIL else lines[1:-1]
    return [json.loads(line) for line in whole if line]
