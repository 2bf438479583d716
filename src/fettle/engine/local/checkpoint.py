"""A saved policy: a folder written beside and renamed into place, with a hash of every file. Never pickle."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from fettle.errors import CheckpointError, StorageError
from fettle.tracking import lasting

MANIFEST = "manifest.json"
STATE = "policy.json"
"""What a policy is, beside its weights."""


@contextmanager
def writing(folder: Path) -> Iterator[Path]:
    """A scratch folder that becomes ``folder``, whole or not at all.

    Raises:
        CheckpointError: ``folder`` exists; names are never reused.
        StorageError: something could not be written; nothing is left behind.
    """
    if folder.exists():
        raise CheckpointError(f"there is a checkpoint {folder} already: names are never reused")
    scratch = folder.with_name(f".{folder.name}.partial")
    try:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        yield scratch
        _seal(scratch)
        scratch.rename(folder)
        lasting(folder.parent)
    except BaseException as error:
        shutil.rmtree(scratch, ignore_errors=True)
        # The tokenizer's writer, in Rust, raises a bare Exception that quotes the system's error.
        if isinstance(error, OSError | SafetensorError) or "os error" in str(error):
            raise StorageError(
                f"the checkpoint {folder} could not be written ({error}): free some space and save again"
            ) from error
        raise


def digest(folder: Path) -> str:
    """What identifies a checkpoint: the hash of its manifest."""
    return _hash(folder / MANIFEST)


def verify(folder: Path) -> None:
    """Check every file against the manifest.

    Raises:
        CheckpointError: no manifest, a file is missing, or one is not what was written.
    """
    try:
        hashes: dict[str, str] = json.loads((folder / MANIFEST).read_text())["sha256"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{folder} is no checkpoint: it has no readable {MANIFEST}") from error
    mend = "bring the file back, or use another checkpoint"
    for name, expected in hashes.items():
        path = folder / name
        if not path.is_file():
            raise CheckpointError(f"the checkpoint {folder} lacks {name}: {mend}")
        if _hash(path) != expected:
            raise CheckpointError(f"{path} is not what was saved (its hash differs from {MANIFEST}): {mend}")


def _seal(folder: Path) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    with ThreadPoolExecutor(max(len(files), 1)) as pool:  # the disk is at work while they are hashed
        written = pool.map(lasting, files)
        manifest = {"sha256": {path.relative_to(folder).as_posix(): _hash(path) for path in files}}
        list(written)
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    for path in (folder / MANIFEST, folder):
        lasting(path)


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
