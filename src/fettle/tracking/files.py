"""The tracker that is always on: rows of metrics and pages of samples in the run's folder."""

import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from fettle.errors import StorageError
from fettle.tracking.atomic import unwritable, write_atomically
from fettle.tracking.base import Transcript
from fettle.tracking.claim import claim
from fettle.tracking.folder import RunFolder
from fettle.tracking.lines import opened, read_lines, shorten, write
from fettle.tracking.pages import page

NONFINITE = "nonfinite"
"""Key under which a row spells out the values that JSON has no numbers for."""


class FileTracker:
    """Writes a run's folder, and is the only one to do so until it is closed.

    Raises:
        StorageError: another process writes this run.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._claim = claim(folder.path)
        self._file: BinaryIO | None = None

    def truncate(self, step: int) -> int:
        """Drop what was left of the steps after ``step``, which will be done again; returns the rows dropped.

        Raises:
            StorageError: the shortened file could not be written.
        """
        self._let_go()
        for written in sorted(self._folder.transcripts.glob("step-*.md")):
            if int(written.stem.removeprefix("step-")) > step:
                written.unlink()
        shorten(self._folder.failures_path, step)
        return shorten(self._folder.metrics_path, step)

    def log(self, step: int, row: Mapping[str, float]) -> None:
        """Append one row; it is on its way to the disk when this returns.

        Raises:
            StorageError: it could not be written.
        """
        values = {name: float(value) for name, value in row.items()}
        odd = {name: str(value) for name, value in values.items() if not math.isfinite(value)}
        record: dict[str, Any] = {"step": step, "time": round(time.time(), 3), **values, **dict.fromkeys(odd)}
        if odd:
            record[NONFINITE] = odd
        self._append(json.dumps(record, allow_nan=False).encode() + b"\n")

    def transcripts(self, step: int, pages: Sequence[Transcript]) -> None:
        """Leave a page of samples.

        Raises:
            StorageError: it could not be written.
        """
        write_atomically(self._folder.transcripts / f"step-{step:06d}.md", page(step, pages))

    def close(self) -> None:
        """Let go of the run."""
        self._let_go()
        self._claim.close()

    def _let_go(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _append(self, line: bytes) -> None:
        path = self._folder.metrics_path
        try:
            if self._file is None:
                self._file = opened(path)
            write(self._file, line)
        except OSError as error:
            self._let_go()
            raise StorageError(unwritable(path, error)) from error


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The rows of a metrics file, as they were logged, with ``step`` and ``time``; empty where there is none.

    A line that was cut short, by a crash or because it is being written now, is passed over.
    """
    return [_row(record) for record in read_lines(path)]


def _row(record: dict[str, Any]) -> dict[str, float]:
    odd = record.pop(NONFINITE, {})
    return record | {name: float(value) for name, value in odd.items()}
