"""Episodes that broke: a line each in the run's folder, with the reason."""

import json
from collections.abc import Sequence
from typing import Any, Literal

from fettle.errors import StorageError
from fettle.tracking.atomic import unwritable
from fettle.tracking.folder import RunFolder
from fettle.tracking.lines import opened, read_lines, write
from fettle.types import Failed

Phase = Literal["training", "evaluation"]


def record_failures(folder: RunFolder, step: int, phase: Phase, failures: Sequence[Failed]) -> None:
    """Append a line for each of ``failures``, which belong to ``step``.

    Raises:
        StorageError: they could not be written.
    """
    if not failures:
        return
    records = (
        {"step": step, "phase": phase, "environment": f.task.source, "task": f.task.id, "reason": f.reason}
        for f in failures
    )
    path = folder.failures_path
    try:
        with opened(path) as file:
            write(file, "".join(json.dumps(record) + "\n" for record in records).encode())
    except OSError as error:
        raise StorageError(unwritable(path, error)) from error


def read_failures(folder: RunFolder) -> list[dict[str, Any]]:
    """What was recorded, in order: ``step``, ``phase``, ``environment``, ``task`` and ``reason``."""
    return read_lines(folder.failures_path)
