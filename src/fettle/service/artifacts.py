"""Finished checkpoints: as the engine wrote them in the state folder, and, where an address is given, also in a store.

A copy counts only once it has been read back and every file has the hash that the checkpoint's manifest says.
"""

import asyncio
import contextlib
import hashlib
import json
import shutil
import sys
import tarfile
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, TypeVar
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

import fsspec  # type: ignore[import-untyped]

from fettle.errors import CheckpointError, ConfigError, NotFoundError, StateError, StorageError
from fettle.service.entries import CheckpointEntry
from fettle.tracking.atomic import lasting

CHUNK = 2**20
MANIFEST = "manifest.json"

Result = TypeVar("Result")


class Artifacts:
    """The files of checkpoints, wherever they are.

    Raises:
        ConfigError: the address is of no store that is known here.
    """

    def __init__(self, url: str | None) -> None:
        self._files: Any = None
        self._root = ""
        if url is not None:
            self._files, self._root = _store_at(url)
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def keep(self, entry: CheckpointEntry) -> CheckpointEntry:
        """Copy a checkpoint into the store; it says when it was there whole. Without a store, nothing happens.

        Raises:
            CheckpointError: what is in the state folder, or what came back, is not what was saved.
            StorageError: the store is away.
        """
        if self._files is None or entry.stored_at is not None:
            return entry
        await self._blocking(lambda: self._upload(entry))
        return replace(entry, stored_at=datetime.now(UTC))

    async def fetched(self, entry: CheckpointEntry) -> Path:
        """The checkpoint's folder here, brought back from the store if it is not there.

        Raises:
            CheckpointError: it is nowhere, or what came back is not what was saved.
            StorageError: the store is away, or there is no space.
        """
        folder = Path(entry.path)
        async with self._turn(entry):
            if not await asyncio.to_thread(folder.is_dir):
                self._check_stored(entry)
                await self._blocking(lambda: self._download(entry, folder))
        return folder

    async def drop(self, entry: CheckpointEntry) -> None:
        """Delete the copy in the state folder; the one in the store stays.

        Raises:
            StateError: there is no other.
        """
        if entry.stored_at is None:
            raise StateError(f"the checkpoint {entry.id} is in the state folder alone: keep it in a store first")
        async with self._turn(entry):
            await self._blocking(lambda: _remove_folder(Path(entry.path)))

    async def delete(self, entry: CheckpointEntry) -> None:
        """Delete every copy.

        Raises:
            StorageError: the store is away, and its copy is still there.
        """
        async with self._turn(entry):
            await self._blocking(lambda: self._remove(entry))

    async def files(self, entry: CheckpointEntry) -> list[tuple[str, int]]:
        """Names within the checkpoint, and their sizes in bytes.

        Raises:
            CheckpointError: it is nowhere.
            StorageError: the store is away.
        """
        return await self._blocking(lambda: self._listed(entry))

    async def read(self, entry: CheckpointEntry, name: str) -> AsyncIterator[bytes]:
        """One file of a checkpoint, piece by piece.

        Raises:
            NotFoundError: it has none of that name.
        """
        if name not in dict(await self.files(entry)):
            raise NotFoundError(f"the checkpoint {entry.id} has no file {name!r}")
        file = await self._blocking(lambda: self._opened(entry, name))
        try:
            while piece := await self._blocking(lambda: file.read(CHUNK)):
                yield piece
        finally:
            await self._blocking(file.close)

    async def archive(self, entry: CheckpointEntry) -> AsyncIterator[bytes]:
        """The checkpoint as a tar file, piece by piece; the same checkpoint gives the same bytes."""
        for name, size in await self.files(entry):
            head = tarfile.TarInfo(name)
            head.size, head.mtime = size, int(entry.created_at.timestamp())
            yield head.tobuf()
            async for piece in self.read(entry, name):
                yield piece
            yield b"\0" * (-size % tarfile.BLOCKSIZE)
        yield b"\0" * (2 * tarfile.BLOCKSIZE)

    def _turn(self, entry: CheckpointEntry) -> asyncio.Lock:
        """Whose holder alone touches the checkpoint's folder."""
        return self._turns.setdefault(entry.id, asyncio.Lock())

    async def _blocking(self, act: Callable[[], Result]) -> Result:
        try:
            return await asyncio.to_thread(act)
        except _faults() as error:
            where = self._root or "the state folder"
            raise StorageError(f"checkpoints in {where} cannot be reached ({error}): see that it can be") from error

    # What follows waits for disks and networks, and is called from a thread.

    def _upload(self, entry: CheckpointEntry) -> None:
        folder = Path(entry.path)
        hashes = {**_hashes(entry, (folder / MANIFEST).read_bytes()), MANIFEST: entry.digest}
        for name, expected in hashes.items():
            self._files.makedirs(self._at(entry, name).rpartition("/")[0], exist_ok=True)
            self._files.put_file(str(folder / name), self._at(entry, name))
            with self._files.open(self._at(entry, name), "rb") as file:
                _check(entry, name, file, expected)
        for path in self._files.find(self._at(entry, "")):  # of one of this name that was overwritten
            if path.removeprefix(self._at(entry, "")) not in hashes:
                self._files.rm_file(path)

    def _download(self, entry: CheckpointEntry, folder: Path) -> None:
        scratch = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.partial")
        try:
            scratch.mkdir(parents=True)
            self._fetch(entry, MANIFEST, scratch, entry.digest)
            for name, expected in _hashes(entry, (scratch / MANIFEST).read_bytes()).items():
                self._fetch(entry, name, scratch, expected)
            scratch.rename(folder)
            lasting(folder.parent)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _fetch(self, entry: CheckpointEntry, name: str, folder: Path, expected: str) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        try:
            self._files.get_file(self._at(entry, name), str(folder / name))
        except FileNotFoundError as error:
            raise CheckpointError(
                f"the checkpoint {entry.id} lacks {name} in {self._root}: bring the file back, or use another"
            ) from error
        with (folder / name).open("rb") as file:
            _check(entry, name, file, expected)
        lasting(folder / name)

    def _listed(self, entry: CheckpointEntry) -> list[tuple[str, int]]:
        folder = Path(entry.path)
        if folder.is_dir():
            found = [path for path in folder.rglob("*") if path.is_file()]
            return sorted((path.relative_to(folder).as_posix(), path.stat().st_size) for path in found)
        self._check_stored(entry)
        prefix = self._at(entry, "")
        stored: Mapping[str, Mapping[str, Any]] = self._files.find(prefix, detail=True)
        return sorted((path.removeprefix(prefix), int(about["size"])) for path, about in stored.items())

    def _opened(self, entry: CheckpointEntry, name: str) -> IO[bytes]:
        path = Path(entry.path) / name
        file: IO[bytes] = path.open("rb") if path.is_file() else self._files.open(self._at(entry, name), "rb")
        return file

    def _remove(self, entry: CheckpointEntry) -> None:
        if self._files is not None:
            with contextlib.suppress(FileNotFoundError):
                self._files.rm(self._at(entry, ""), recursive=True)
        _remove_folder(Path(entry.path))

    def _check_stored(self, entry: CheckpointEntry) -> None:
        if self._files is None or entry.stored_at is None:
            raise CheckpointError(f"the checkpoint {entry.id} is no longer in {entry.path}: use another")

    def _at(self, entry: CheckpointEntry, name: str) -> str:
        return f"{self._root}/{entry.id}/{name}"


def _store_at(url: str) -> tuple[Any, str]:
    if "@" in urlsplit(url).netloc:
        raise ConfigError(
            "artifacts_url has a name or password in it: leave them out, and put them into the environment"
        )
    try:
        files, root = fsspec.core.url_to_fs(url, use_listings_cache=False)
    except ImportError as error:
        raise ConfigError(f"artifacts_url is {url}, and nothing here speaks that: pip install fettle[s3]") from error
    except ValueError as error:
        raise ConfigError(f"artifacts_url is {url}, which is no address of a store: {error}") from error
    return files, root.rstrip("/")


def _faults() -> tuple[type[Exception], ...]:
    """What reading and writing raises where a disk or a store is away."""
    boto = sys.modules.get("botocore.exceptions")  # s3fs hands on what it could not translate
    return (OSError,) if boto is None else (OSError, boto.BotoCoreError)


def _hashes(entry: CheckpointEntry, manifest: bytes) -> dict[str, str]:
    try:
        hashes: dict[str, str] = json.loads(manifest)["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"the checkpoint {entry.id} has no readable {MANIFEST}: use another") from error
    return hashes


def _check(entry: CheckpointEntry, name: str, file: IO[bytes], expected: str) -> None:
    hashed = hashlib.sha256()
    while piece := file.read(CHUNK):
        hashed.update(piece)
    if hashed.hexdigest() != expected:
        raise CheckpointError(
            f"{name} of the checkpoint {entry.id} is not what was saved (its hash differs): "
            "bring the file back, or use another checkpoint"
        )


def _remove_folder(folder: Path) -> None:
    """All of it at once, for whoever looks."""
    grave = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.deleted")
    with contextlib.suppress(FileNotFoundError):
        folder.rename(grave)
    shutil.rmtree(grave, ignore_errors=True)
