"""Files that grow by a line as a run goes: one JSON object each, with the step it belongs to."""

import json
from pathlib import Path
from typing import Any, BinaryIO

from fettle.tracking.atomic import write_atomically


def opened(path: Path) -> BinaryIO:
    """The file, ready for another line; one that was cut short is taken out first."""
    # Unbuffered, so that nothing of a line that did not fit is tried again when the file is closed.
    file: BinaryIO = path.open("ab", buffering=0)
    if path.stat().st_size:
        whole = path.read_bytes().rpartition(b"\n")
        file.truncate(len(whole[0] + whole[1]))
    return file


def write(file: BinaryIO, lines: bytes) -> None:
    """Append all of ``lines``, or raise the system's error."""
    written = file.write(lines)
    while written < len(lines):
        written += file.write(lines[written:])


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects in the file; empty where there is none.

    A line that was cut short, by a crash or because it is being written now, is passed over.
    """
    if not path.is_file():
        return []
    found = (object_of(line) for line in path.read_bytes().splitlines(keepends=True))
    return [each for each in found if each is not None]


def shorten(path: Path, step: int) -> int:
    """Drop the lines of the steps after ``step``; returns how many.

    Raises:
        StorageError: the shortened file could not be written.
    """
    if not path.is_file():
        return 0
    lines = path.read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if (found := object_of(line)) is not None and found["step"] <= step]
    if len(kept) < len(lines):
        write_atomically(path, b"".join(kept))
    return len(lines) - len(kept)


def object_of(line: bytes) -> dict[str, Any] | None:
    """The object of a whole line; None where it holds none, or none with a step."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    if not (isinstance(record, dict) and isinstance(record.get("step"), int) and line.endswith(b"\n")):
        return None
    return record
