"""Checkpoints brought here from a service: a folder, every file of which is what was saved."""

import hashlib
import json
import shutil
import tarfile
import tempfile
from pathlib import Path

from fettle.client.kept import id_of
from fettle.client.transport import Transport
from fettle.errors import CheckpointError, StorageError
from fettle.tracking.atomic import unwritable

MANIFEST = "manifest.json"
"""The file of a checkpoint that has the hashes of all others."""


async def downloaded(transport: Transport, checkpoint: str, folder: Path) -> Path:
    """Copy a checkpoint into a new folder.

    Raises:
        CheckpointError: the folder is there already, or what came is not what was saved.
        StorageError: it could not be written.
        NotFoundError: there is no such checkpoint.
    """
    if folder.exists():  # noqa: ASYNC240 - a look at a name waits for nobody
        raise CheckpointError(f"there is a folder {folder} already: give the name of a new one")
    known = await transport.get(f"/v1/checkpoints/{id_of(checkpoint)}")
    scratch = folder.with_name(f".{folder.name}.partial")
    try:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        with tempfile.TemporaryFile(dir=scratch.parent) as archive:
            await transport.download(f"/v1/checkpoints/{id_of(checkpoint)}/archive", to=archive)
            archive.seek(0)
            with tarfile.open(fileobj=archive) as tar:
                tar.extractall(scratch, filter="data")
        _verify(scratch, str(known["digest"]))
        scratch.rename(folder)
    except tarfile.TarError as error:
        raise CheckpointError(f"the archive of {checkpoint} cannot be read ({error}): download it again") from error
    except OSError as error:
        raise StorageError(unwritable(folder, error)) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


def _verify(folder: Path, digest: str) -> None:
    """Check the manifest against the service's digest, and every file against the manifest."""
    again = "download it again"
    if not (folder / MANIFEST).is_file() or _hash(folder / MANIFEST) != digest:
        raise CheckpointError(f"what came has no {MANIFEST} with the digest that the service tells: {again}")
    hashes: dict[str, str] = json.loads((folder / MANIFEST).read_text())["sha256"]
    for name, expected in hashes.items():
        if not (folder / name).is_file() or _hash(folder / name) != expected:
            raise CheckpointError(f"{name} did not come as it was saved: {again}")


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
