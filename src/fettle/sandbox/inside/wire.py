"""How the two sides of a worker speak: lines of JSON over a local socket, with descriptors beside them."""

import contextlib
import json
import os
import select
import socket
from collections.abc import Sequence
from typing import Any

_PIECE = 1 << 16
_DESCRIPTORS = 4

Said = dict[str, Any]


class Ended(Exception):  # noqa: N818  no error: the other side is gone
    """The other side closed its end."""


class Channel:
    """One end. Lines are short; descriptors belong to the line with which they came."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._buffer = b""
        self._descriptors: list[int] = []

    def fileno(self) -> int:
        """So that it can be waited for."""
        return self.connection.fileno()

    def send(self, said: Said, descriptors: Sequence[int] = ()) -> None:
        """Say something.

        Raises:
            Ended: nobody is there.
        """
        line = json.dumps(said).encode() + b"\n"
        try:
            if descriptors:
                socket.send_fds(self.connection, [line], list(descriptors))
            else:
                self.connection.sendall(line)
        except OSError as error:
            raise Ended(str(error)) from error

    def receive(self, seconds: float | None = None) -> Said | None:
        """What was said, with the descriptors under ``descriptors``; None where nothing is, within that time.

        Raises:
            Ended: nobody is there any longer.
        """
        while b"\n" not in self._buffer:
            if seconds is not None and not readable(self.connection, seconds):
                return None
            try:
                data, descriptors, _, _ = socket.recv_fds(self.connection, _PIECE, _DESCRIPTORS)
            except OSError as error:
                raise Ended(str(error)) from error
            if not data:
                raise Ended("the other side closed its end")
            self._buffer += data
            self._descriptors += descriptors
        line, _, self._buffer = self._buffer.partition(b"\n")
        said: Said = json.loads(line)
        if said.get("with"):
            said["descriptors"], self._descriptors = self._descriptors, []
        return said

    def waiting(self) -> bool:
        """Whether a line came already that was not received."""
        return b"\n" in self._buffer

    def close(self) -> None:
        """Close this end, and what was handed over and not taken."""
        for descriptor in self._descriptors:
            with contextlib.suppress(OSError):
                os.close(descriptor)
        self.connection.close()


def readable(connection: socket.socket, seconds: float) -> bool:
    """Whether there is something to read, or the other side is gone, within that time; whatever its number."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(max(0.0, seconds) * 1000))


def exactly(connection: socket.socket, size: int) -> bytes:
    """So many bytes.

    Raises:
        Ended: there are not so many.
    """
    pieces = []
    while size:
        piece = connection.recv(min(size, 1 << 20))
        if not piece:
            raise Ended("the other side closed its end")
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)
