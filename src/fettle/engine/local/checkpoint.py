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


class Draft:
    """A folder that is written beside the one that it becomes, whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.scratch = folder.with_name(f".{folder.name}.partial")

    def begin(self) -> None:
        """Make room for it.

        Raises:
            CheckpointError: the folder exists; names are never reused.
            StorageError: it cannot be made.
        """
        if self.folder.exists():
            raise CheckpointError(f"there is a checkpoint {self.folder} already: names are never reused")
        with self.or_nothing():
            shutil.rmtree(self.scratch, ignore_errors=True)
            self.scratch.mkdir(parents=True)

    @contextmanager
    def or_nothing(self) -> Iterator[None]:
        """What is done inside is part of it; if it fails, nothing is left behind.

        Raises:
            StorageError: something could not be written.
        """
        try:
            yield
        except BaseException as error:
            shutil.rmtree(self.scratch, ignore_errors=True)
            # The tokenizer's writer, in Rust, raises a bare Exception that quotes the system's error.
            if isinstance(error, OSError | SafetensorError) or "os error" in str(error):
                raise StorageError(
                    f"the checkpoint {self.folder} could not be written ({error}): free some space and save again"
                ) from error
            raise

    def seal(self) -> None:
        """It is whole, and on the disk when this returns."""
        with self.or_nothing():
            _seal(self.scratch)
            self.scratch.rename(self.folder)
            lasting(self.folder.parent)


@contextmanager
def writing(folder: Path) -> Iterator[Path]:
    """A scratch folder that becomes ``folder``, whole or not at all.

    Raises:
        CheckpointError: ``folder`` exists; names are never reused.
        StorageError: something could not be written; nothing is left behind.
    """
    draft = Draft(folder)
    draft.begin()
    with draft.or_nothing():
        yield draft.scratch
    draft.seal()


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
