"""Checkpoints that a service keeps, and the notes of them that lie in folders here.

A run folder holds such a note where it would hold the checkpoint. A checkpoint is kept there for as long as its note
lies here.
"""

import json
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from fettle.client.transport import Transport
from fettle.errors import CheckpointError, NotFoundError, StorageError
from fettle.tracking.atomic import unwritable, write_atomically
from fettle.types import Checkpoint

NOTE = "at-service.json"
"""The file in a checkpoint's folder that says where the checkpoint is."""

SCHEME = "fettle://"


@dataclass(frozen=True, slots=True)
class Kept:
    """A checkpoint at a service."""

    uri: str
    digest: str
    policy_version: int
    service: str
    """The service's address when it was saved."""


class Notes:
    """The notes in one folder, and the checkpoints at the service that they keep there."""

    def __init__(self, transport: Transport, folder: Path | None) -> None:
        self._transport = transport
        self._folder = folder
        self._noted = {path.parent: kept(str(path.parent)) for path in (folder.glob(f"*/{NOTE}") if folder else ())}

    async def noted(self, checkpoint: Checkpoint) -> Checkpoint:
        """A checkpoint that was just saved, by a folder that now holds a note of it; without a folder, as it is.

        Raises:
            StorageError: the note could not be written.
        """
        if self._folder is None:
            return checkpoint
        await self.swept()
        folder = self._folder / checkpoint.name
        note = Kept(uri_of(checkpoint.path), checkpoint.digest, checkpoint.policy_version, self._transport.url)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(unwritable(folder, error)) from error
        write_atomically(folder / NOTE, json.dumps(asdict(note), indent=2) + "\n")
        self._noted[folder] = note
        return replace(checkpoint, path=str(folder))

    async def swept(self) -> None:
        """Delete at the service what has no note here any more."""
        for folder, note in list(self._noted.items()):
            if note is not None and not (folder / NOTE).is_file():
                with suppress(NotFoundError):  # somebody else deleted it
                    await self._transport.request("DELETE", f"/v1/checkpoints/{id_of(note.uri)}")
                del self._noted[folder]


def kept(weights: str) -> Kept | None:
    """What a note in this folder says; None where there is no note, or no folder.

    Raises:
        CheckpointError: there is one, and it cannot be read.
    """
    path = Path(weights) / NOTE
    if not path.is_file():
        return None
    try:
        return Kept(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}): take an earlier checkpoint") from error


def uri_of(checkpoint: str) -> str:
    """The address of a checkpoint that is given by its address, its id, or a folder with a note of it."""
    note = kept(checkpoint)
    if note is not None:
        return note.uri
    return checkpoint if checkpoint.startswith(SCHEME) else SCHEME + checkpoint


def id_of(checkpoint: str) -> str:
    """The same, as it stands in the paths of requests: ``<run>/<kind>/<name>``."""
    return uri_of(checkpoint).removeprefix(SCHEME)
