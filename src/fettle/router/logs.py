"""Files that JSON objects are added to, one a line. What cannot be written is counted and told once: no error."""

import json
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fettle.config.router import LogFile
from fettle.errors import StorageError
from fettle.router.amounts import amount

logger = logging.getLogger(__name__)

LEVELS = ("debug", "info", "warning", "error")

Write = Callable[..., None]
"""``(level, event, **fields)``."""


class Lines:
    """A file that lines are added to, made when the first one is."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle: int | None = None
        self._torn = False

    def open(self) -> int:
        """The file as the system knows it.

        Raises:
            OSError: it cannot be written to.
        """
        if self._handle is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        return self._handle

    def add(self, fields: Mapping[str, Any]) -> None:
        """Add a line. One that was cut short by a full disk stays as it is, and the next is a line of its own.

        What JSON has no form for is a number where it is one, and otherwise its text.

        Raises:
            OSError: it is not written, or not whole.
        """
        line = (b"\n" if self._torn else b"") + json.dumps(fields, default=_stated).encode() + b"\n"
        handle, written = self.open(), 0
        try:
            while written < len(line):
                written += os.write(handle, line[written:])
        finally:
            self._torn = (self._torn and written == 0) or 0 < written < len(line)

    def close(self) -> None:
        """Let go of the file.

        Raises:
            OSError: of what was added something is not written after all, as another machine's disk may say.
        """
        handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)


class Lost:
    """Counts the lines that are not written down, and tells of the first."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._turn = threading.Lock()
        self.count = 0

    def tell(self, why: str, lines: int = 1) -> None:
        """So many more are lost."""
        with self._turn:
            first = self.count == 0
            self.count += lines
        if first:
            logger.error("%s is not written down: %s; more such lines are only counted", self._what, why)


def now() -> str:
    """The time, as a line has it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@contextmanager
def logged_to(settings: LogFile | None) -> Iterator[Write]:
    """What to write with while the file is open; with no settings, nothing is written.

    A disk that is full later on is told once, and how many lines that cost at the end.

    Raises:
        StorageError: the file cannot be written to.
    """
    if settings is None:
        yield lambda level, event, **fields: None
        return
    path, least = Path(settings.destination), LEVELS.index(settings.level)
    lines, lost = Lines(path), Lost(f"what happens in a run of {path}")
    try:
        lines.open()
    except OSError as error:
        raise StorageError(f"{path} cannot be written to ({error.strerror}): change the destination") from error

    def write(level: str, event: str, **fields: object) -> None:
        if LEVELS.index(level) < least:
            return
        try:
            lines.add({"time": now(), "level": level, "event": event, "simulated": True, **fields})
        except OSError as error:
            lost.tell(f"{path} cannot be written to ({error.strerror})")

    try:
        yield write
    finally:
        try:
            lines.close()
        except OSError as error:
            lost.tell(f"{path} cannot be written to ({error.strerror})")
        if lost.count:
            logger.warning("%s lacks %d lines", path, lost.count)


def _stated(value: object) -> float | str:
    number = amount(value)
    return str(value) if number is None else number
