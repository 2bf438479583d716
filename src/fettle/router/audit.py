"""A log that accounts for what was done: a JSON object a line, only ever added to, on disk before the deed is told.

Each line holds the hash of the line before it, so that one which was changed or taken out later is found, and a file
beside the log has the hash of the last one, which no line follows. Whoever writes both anew is not found out.
"""

import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, TypeGuard

from fettle.errors import StorageError
from fettle.tracking.atomic import unwritable, write_atomically
from fettle.tracking.claim import hold

AUDIT, HEAD = "audit.jsonl", "audit.sha256"
PAUSE = 0.01
"""A line is written in less than this, so whoever writes at the same time waits it out."""

Entry = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Audit:
    """What a log says."""

    entries: tuple[Entry, ...]
    """Oldest first."""
    broken: tuple[int, ...]
    """Numbers of the lines that are no entries, do not follow the line before them, or are the last and were not."""


def entry(event: str, *, who: str, why: str, **fields: object) -> Entry:
    """What happened, who asked for it and why; now."""
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    return {"at": at, "event": event, "who": who, "why": why, **fields, "simulated": True}


def append(folder: Path, *entries: Entry) -> None:
    """Add entries to the folder's log; they are on disk when this returns.

    Raises:
        StorageError: they could not be written.
    """
    if not entries:
        return
    path = folder / AUDIT
    try:
        with os.fdopen(os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644), "r+b", buffering=0) as file:
            while not hold(file):
                time.sleep(PAUSE)
            text = file.read()
            # A line that a crash cut short stays as it is, and is a line of its own.
            torn = b"" if text.endswith(b"\n") or not text else b"\n"
            lines = _chained(_followed(_head(folder), (text + torn).splitlines(keepends=True)), entries)
            _write(file, torn + b"".join(lines))
            os.fsync(file.fileno())
            write_atomically(folder / HEAD, f"{_hash(lines[-1])}\n")
    except OSError as error:
        raise StorageError(unwritable(path, error)) from error


def read_audit(folder: Path) -> Audit:
    """The folder's log; empty where there is none.

    Raises:
        StorageError: it is there and cannot be read.
    """
    path = folder / AUDIT
    try:
        head = _head(folder)  # before the log, to which a line may be added meanwhile
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    except OSError as error:
        raise StorageError(f"{path} cannot be read ({error.strerror}): see that it is yours") from error
    entries, broken, before = [], [], b""
    for number, line in enumerate(lines, start=1):
        found = _entry_of(line)
        if found is None or found.pop("follows", None) != _hash(before):
            broken.append(number)
        if found is not None:
            entries.append(found)
        before = line
    last = max(1, len(lines))
    if not _is_head(head, lines) and last not in broken:
        broken.append(last)
    return Audit(tuple(entries), tuple(broken))


def is_entry(tree: object) -> TypeGuard[dict[str, Any]]:
    """Whether it says when, what, who and why."""
    return isinstance(tree, dict) and all(isinstance(tree.get(name), str) for name in ("at", "event", "who", "why"))


def _head(folder: Path) -> str | None:
    """The hash of the last line as it was written; None where none was."""
    path = folder / HEAD
    return path.read_text(encoding="ascii", errors="replace").strip() if path.exists() else None


def _is_head(head: str | None, lines: list[bytes]) -> bool:
    """Whether the hash is of one of the lines; a crash may have come before it was replaced by that of the last."""
    return len(lines) < 2 if head is None else any(_hash(line) == head for line in reversed(lines))


def _followed(head: str | None, lines: list[bytes]) -> str:
    """The hash that the next line holds: of the last one, or where that was changed since, of what it was."""
    last = _hash(lines[-1] if lines else b"")
    return last if head is None or _is_head(head, lines) else head


def _chained(before: str, entries: tuple[Entry, ...]) -> list[bytes]:
    lines = []
    for each in entries:
        lines.append(json.dumps({**each, "follows": before}).encode() + b"\n")
        before = _hash(lines[-1])
    return lines


def _entry_of(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if is_entry(found) else None


def _hash(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()


def _write(file: BinaryIO, lines: bytes) -> None:
    while lines:
        lines = lines[file.write(lines) :]
