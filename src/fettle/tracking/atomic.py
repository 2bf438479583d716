"""Files that are there whole, or as they were."""

import contextlib
import os
import sys
from pathlib import Path

from fettle.errors import StorageError


def write_atomically(path: Path, contents: str | bytes) -> None:
    """Replace ``path`` whole, in a way that survives the machine going down.

    Raises:
        StorageError: it could not be written; what was there before is still there.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with scratch.open("wb") as file:
            file.write(contents.encode() if isinstance(contents, str) else contents)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
        lasting(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            scratch.unlink(missing_ok=True)
        raise StorageError(unwritable(path, error)) from error


def unwritable(path: Path, error: OSError) -> str:
    """The sentence for a file that the operating system would not take."""
    return (
        f"{path} could not be written ({error.strerror or error}): see that there is space and that its folder is yours"
    )


def lasting(path: Path) -> None:
    """Make what a file holds, or what names a folder holds, survive the machine going down."""
    if sys.platform == "win32" and path.is_dir():  # no folder can be opened there
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
