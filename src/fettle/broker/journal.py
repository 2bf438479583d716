"""The journal: an append-only log in files, written before anything is done, and made durable in groups."""

import asyncio
import errno
import fcntl
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from fettle.broker import segments
from fettle.config import JournalSettings
from fettle.errors import StorageError
from fettle.frames import Tree, packed, unpacked
from fettle.tracking import lasting

logger = logging.getLogger(__name__)

AT_LATEST = 1.0
"""Seconds after which records are made durable that nobody waits for."""

SUFFIX = ".log"


class Place(NamedTuple):
    """Where a record lies."""

    segment: int
    offset: int


class Entry(NamedTuple):
    """A record of the past."""

    place: Place
    tree: Tree


class Journal:
    """One writer; called on the event loop, but for the thread that makes durable what was written.

    ``head`` is what each file begins with.

    Raises:
        StorageError: another process holds the folder, or it cannot be written to.
    """

    def __init__(self, folder: Path, settings: JournalSettings, *, head: Tree) -> None:
        self.folder = folder
        self.settings = settings
        self._most = settings.segment_mib << 20
        self._head = head
        try:
            make(folder)
            self._lock = _locked(folder)
        except OSError as error:
            raise StorageError(
                f"the journal {folder} cannot be written ({error.strerror}): give it a folder that can be"
            ) from error
        self.segments = segment_numbers(folder)
        self.failed: StorageError | None = None
        """Why it takes in nothing more."""
        self.grown: Callable[[], None] = lambda: None
        """Called when a further file was begun."""
        self._file = -1
        self._size = 0
        self._sizes = {number: _path(folder, number).stat().st_size for number in self.segments}
        self._changed = threading.Condition()
        self._written = self._synced = self._wanted = 0  # records
        self._unsynced_since = 0.0
        self._closing = False
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._commit, name="fettle-journal", daemon=True)

    @property
    def nbytes(self) -> int:
        """Of all files."""
        return sum(self._sizes.values()) + self._size

    @property
    def unsynced_seconds(self) -> float:
        """How long the oldest record has been written that is not durable."""
        return time.monotonic() - self._unsynced_since if self._written > self._synced else 0.0

    def past(self) -> Iterator[Entry]:
        """All records, oldest first; a torn end is cut off.

        Raises:
            StorageError: a file is damaged.
        """
        if self.segments:
            newest = _path(self.folder, self.segments[-1])
            content = newest.read_bytes()
            end = segments.whole(newest, content)
            if end < len(content):
                logger.warning("%s ends in a torn record: %d bytes are cut off", newest, len(content) - end)
                os.truncate(newest, end)
        yield from entries(self.folder)

    def begin(self) -> None:
        """Start a file of its own for what is to come; all that was read is durable from here on."""
        try:
            for number in self.segments[-1:]:  # of which an earlier process may have left some unsynced
                lasting(_path(self.folder, number))
        except OSError as error:
            raise self._fail(error) from error
        self._begin_segment()
        self._thread.start()

    def append(self, tree: Tree) -> Place:
        """Write a record; it survives the end of this process from here on, and that of the machine once durable.

        Raises:
            StorageError: the disk is full, and nothing was written; or the journal failed before.
        """
        content = segments.record(packed(tree))
        with self._changed:
            if self.failed is not None:
                raise self.failed
            if self._size and self._size + len(content) > self._most:
                self._rotate()
            place = Place(self.segments[-1], self._size)
            self._write(content)
            if self._written == self._synced:
                self._unsynced_since = time.monotonic()
            self._written += 1
        return place

    @property
    def position(self) -> int:
        """How many records were written."""
        return self._written

    async def durable(self, position: int) -> None:
        """Return once so many records are on the disk.

        Raises:
            StorageError: they cannot be brought there.
        """
        if self.failed is not None:
            raise self.failed
        if position <= self._synced:
            return
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append((position, future))
        with self._changed:
            self._wanted = max(self._wanted, position)
            self._changed.notify()
        await future

    def read(self, place: Place) -> Tree:
        """A record that was written; from any thread."""
        return unpacked(segments.read(_path(self.folder, place.segment), place.offset))

    def remove(self, segment: int) -> None:
        """Delete the oldest file.

        Raises:
            StorageError: it cannot be deleted, or the journal has failed.
        """
        self._sync(self._file)
        path = _path(self.folder, segment)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"{path} cannot be deleted ({error.strerror}): see to the disk it is on") from error
        self.segments.remove(segment)
        self._sizes.pop(segment)
        self._lasting_folder()

    def close(self) -> None:
        """Make everything durable, and let go of the folder."""
        if self._closing:
            return
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()
        with self._changed:
            self.failed = self.failed or StorageError(f"the journal {self.folder} was closed: make a new engine")
            if self._file >= 0:
                os.close(self._file)
        os.close(self._lock)

    def _write(self, content: bytes) -> None:
        try:
            left = memoryview(content)
            while left:
                left = left[os.write(self._file, left) :]
        except OSError as error:
            self._take_back(error)
            raise _unwritten(self.folder, error) from error
        self._size += len(content)

    def _take_back(self, cause: OSError) -> None:
        """Cut off a record of which only a part could be written."""
        try:
            os.ftruncate(self._file, self._size)
        except OSError:
            self._fail(cause)

    def _rotate(self) -> None:
        self._sync(self._file)
        before, size, segment = self._file, self._size, self.segments[-1]
        self._begin_segment()
        os.close(before)
        self._sizes[segment] = size
        self._loop.call_soon_threadsafe(self.grown)

    def _begin_segment(self) -> None:
        number = self.segments[-1] + 1 if self.segments else 1
        path, head = _path(self.folder, number), segments.record(packed(self._head))
        file = -1
        try:
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
            if os.write(file, head) < len(head):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            if file >= 0:
                os.close(file)
            path.unlink(missing_ok=True)
            raise _unwritten(self.folder, error) from error
        with self._changed:
            self._file, self._size = file, len(head)
        self.segments.append(number)
        self._lasting_folder()

    def _lasting_folder(self) -> None:
        try:
            lasting(self.folder)
        except OSError as error:
            raise self._fail(error) from error

    def _sync(self, file: int) -> None:
        """Bring a file to the disk. Where that fails the journal has failed: what the disk holds now is not known."""
        try:
            os.fdatasync(file)
        except OSError as error:
            raise self._fail(error) from error

    def _fail(self, error: OSError) -> StorageError:
        if self.failed is None:
            self.failed = StorageError(
                f"the journal {self.folder} failed ({error.strerror}), and nothing more is taken in: "
                "see to its disk, then start again"
            )
            logger.error("%s", self.failed.message)
        return self.failed

    def _commit(self) -> None:
        """The thread: what waits is made durable together."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closing or self._wanted > self._synced, timeout=AT_LATEST)
                closing, written = self._closing, self._written
                file = os.dup(self._file) if written > self._synced else -1
            if file >= 0 and not self._brought(file, written):
                return
            if closing:
                return

    def _brought(self, file: int, written: int) -> bool:
        """Whether what was written is on the disk now; those who wait are told."""
        try:
            self._sync(file)
        except StorageError:
            return False
        else:
            with self._changed:
                self._synced, self._unsynced_since = written, time.monotonic()
            return True
        finally:
            os.close(file)
            self._tell()

    def _tell(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._wake)
        except RuntimeError:  # The loop was closed, and with it whoever waited.
            return

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for position, future in waiting:
            if future.done():
                continue
            if position <= self._synced:
                future.set_result(None)
            elif self.failed is not None:
                future.set_exception(self.failed)
            else:
                self._waiting.append((position, future))


def entries(folder: Path) -> Iterator[Entry]:
    """All records of a journal, oldest first, which another process may be writing.

    Raises:
        StorageError: a file is damaged.
    """
    numbers = segment_numbers(folder)
    for number in numbers:
        for record in segments.records(_path(folder, number), newest=number == numbers[-1]):
            yield Entry(Place(number, record.offset), unpacked(record.payload))


def make(folder: Path) -> None:
    """Make a folder, and those above it; that they are there survives the machine going down."""
    if not folder.is_dir():
        make(folder.parent)
        folder.mkdir(exist_ok=True)
        lasting(folder.parent)


def segment_numbers(folder: Path) -> list[int]:
    """Of the files that are there, oldest first."""
    return sorted(int(path.stem) for path in folder.glob(f"*{SUFFIX}") if path.stem.isdigit())


def _path(folder: Path, segment: int) -> Path:
    return folder / f"{segment:08d}{SUFFIX}"


def _unwritten(folder: Path, error: OSError) -> StorageError:
    return StorageError(
        f"the journal {folder} cannot be written ({error.strerror}), and nothing was done: "
        "free some space on its disk and send this again"
    )


def _locked(folder: Path) -> int:
    """A lock that ends with the process.

    Raises:
        StorageError: another one holds it.
    """
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise StorageError(f"another process holds the journal {folder}: end it, or take another folder") from error
    return lock
