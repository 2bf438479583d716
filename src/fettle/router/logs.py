"""A log of a run: one JSON object a line."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from fettle.config.router import LogFile
from fettle.errors import StorageError

LEVELS = ("debug", "info", "warning", "error")

Write = Callable[..., None]
"""``(level, event, **fields)``."""


@contextmanager
def logged_to(settings: LogFile | None) -> Iterator[Write]:
    """What to write with while the file is open; with no settings, nothing is written.

    Raises:
        StorageError: the file cannot be written to.
    """
    if settings is None:
        yield lambda level, event, **fields: None
        return
    path = Path(settings.destination)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a", encoding="utf-8")
    except OSError as error:
        raise StorageError(f"{path} cannot be written to ({error.strerror}): change the destination") from error
    least = LEVELS.index(settings.level)

    def write(level: str, event: str, **fields: object) -> None:
        if LEVELS.index(level) >= least:
            line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "level": level, "event": event}
            file.write(json.dumps({**line, "simulated": True, **fields}) + "\n")
            file.flush()

    with file:
        yield write
