"""One writer a run: a lock that the operating system takes back when a process ends, however it ends."""

import sys
import time
from pathlib import Path
from typing import BinaryIO

from fettle.errors import StorageError
from fettle.tracking.atomic import unwritable

if sys.platform != "win32":
    import fcntl

LOCK = ".lock"
ATTEMPTS, PAUSE = 20, 0.05
"""Whoever looks whether a run is claimed holds it for a moment, so one refusal proves nothing."""


def claim(folder: Path) -> BinaryIO:
    """Hold the run in ``folder`` until the returned file is closed.

    Raises:
        StorageError: someone else holds it, or its folder cannot be written to.
    """
    path = folder / LOCK
    try:
        file = path.open("ab")
    except OSError as error:
        raise StorageError(unwritable(path, error)) from error
    for _ in range(ATTEMPTS):
        if _locked(file, exclusively=True):
            return file
        time.sleep(PAUSE)
    file.close()
    raise StorageError(f"the run in {folder} is being written by another process: wait for it, or start a new run")


def hold(file: BinaryIO) -> bool:
    """Hold an open file until it is closed; False where someone else does."""
    return _locked(file, exclusively=True)


def is_claimed(folder: Path) -> bool:
    """Whether a living process holds the run in ``folder``."""
    try:
        with (folder / LOCK).open("rb") as file:
            return not _locked(file, exclusively=False)
    except OSError:
        return False


def _locked(file: BinaryIO, *, exclusively: bool) -> bool:
    if sys.platform == "win32":  # two writers are not kept apart there
        return True
    try:
        fcntl.flock(file, (fcntl.LOCK_EX if exclusively else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
