"""One file of a journal: records end to end, each with its length and a checksum.

::

    "FJR1"   u32 length of the payload   u32 CRC-32 of the length and the payload   payload

A process that is killed leaves whole records and, at the end, perhaps a part of one.
"""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from fettle.errors import StorageError

MAGIC = b"FJR1"
HEAD = struct.Struct("<4sII")


class Record(NamedTuple):
    """A payload and where it lies."""

    offset: int
    payload: bytes


def record(payload: bytes) -> bytes:
    """The bytes of a record."""
    return HEAD.pack(MAGIC, len(payload), _checksum(payload)) + payload


def records(path: Path, *, newest: bool) -> Iterator[Record]:
    """Those of a file; of the newest, what is torn at its end is left out (see :func:`whole`).

    Raises:
        StorageError: a record is damaged, and it is no torn end.
    """
    content = path.read_bytes()
    end = whole(path, content) if newest else len(content)
    at = 0
    while at < end:
        payload = _payload(content, at)
        if payload is None:
            raise _damaged(path, at)
        yield Record(at, payload)
        at += HEAD.size + len(payload)


def whole(path: Path, content: bytes) -> int:
    """How far a file's records are whole.

    Raises:
        StorageError: whole records follow a damaged one, so it is not the end that was torn.
    """
    at = 0
    while at < len(content) and (payload := _payload(content, at)) is not None:
        at += HEAD.size + len(payload)
    later = content.find(MAGIC, at + 1)
    while later >= 0:
        if _payload(content, later) is not None:
            raise _damaged(path, at)
        later = content.find(MAGIC, later + 1)
    return at


def read(path: Path, offset: int) -> bytes:
    """The payload of the record at ``offset``.

    Raises:
        StorageError: there is no whole record.
    """
    try:
        with path.open("rb") as file:
            file.seek(offset)
            head = file.read(HEAD.size)
            content = head + file.read(HEAD.unpack(head)[1]) if len(head) == HEAD.size else head
    except OSError as error:
        raise StorageError(f"{path} cannot be read ({error.strerror}): see to the disk that it is on") from error
    payload = _payload(content, 0)
    if payload is None:
        raise _damaged(path, offset)
    return payload


def _payload(content: bytes, at: int) -> bytes | None:
    """The payload of the whole record that begins there; None if none does."""
    if at + HEAD.size > len(content):
        return None
    magic, length, checksum = HEAD.unpack_from(content, at)
    payload = content[at + HEAD.size : at + HEAD.size + length]
    return payload if magic == MAGIC and len(payload) == length and _checksum(payload) == checksum else None


def _checksum(payload: bytes) -> int:
    return zlib.crc32(payload, len(payload))


def _damaged(path: Path, at: int) -> StorageError:
    return StorageError(
        f"the journal {path} is damaged at byte {at}, and whole records follow: bring the file back from a copy; "
        f"cutting it there (truncate -s {at}) and removing later files loses every operation after it"
    )
