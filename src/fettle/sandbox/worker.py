"""One worker as its owner sees it: a process that is told to begin jobs, and tells how they ended."""

import json
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from fettle.config import SandboxSettings
from fettle.errors import SandboxError
from fettle.sandbox.inside.wire import Channel, Ended, readable

_ROOM = Path(__file__).parent
_BOOT = """
import sys, types
for name, folder in zip(("fettle", "fettle.sandbox"), sys.argv[1:3]):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [folder]
del sys.argv[1:3]
from fettle.sandbox.inside.server import main
del sys.modules["fettle"], sys.modules["fettle.sandbox"]
main()
"""
"""Loads the worker's modules without those that lie above them: a worker knows the standard library alone."""
_ENVIRONMENT = {"PYTHONHASHSEED": "0", "MALLOC_ARENA_MAX": "2"}
"""All that a worker's environment holds: what its owner's holds may be secret."""
_START_SECONDS, _BEGIN_SECONDS, _END_SECONDS, _IMPORT_SECONDS, _FAREWELL_SECONDS = 60.0, 20.0, 20.0, 120.0, 5.0
_OVER_SECONDS = 1.0
"""Within which a worker that could not confine a job says that it is over, or is found to be gone."""


class RefusedError(Exception):
    """Nothing can be confined here as strictly as was asked; ``weaker`` names the strictest that can be tried."""

    def __init__(self, reason: str, weaker: str) -> None:
        super().__init__(reason)
        self.weaker = weaker


class UnbegunError(SandboxError):
    """The worker was gone before a job began, of which nothing has happened."""


class UnconfinedError(SandboxError):
    """The walls of a job could not be built."""


class End(NamedTuple):
    """How a job ended, as the worker tells it."""

    why: str | None
    """A limit that it went beyond; None where it ended by itself."""
    status: int | None
    """As ``wait`` has it; None where nobody was left to tell."""
    processor: float


class Worker:
    """A process that runs one job at a time, each in a copy of itself. Used by one thread."""

    def __init__(self, settings: SandboxSettings, *, packages: bool) -> None:
        """Start it, and wait until it is ready.

        Raises:
            RefusedError: it cannot confine anything here.
            SandboxError: it did not start.
        """
        self.isolation = "namespaces" if settings.isolation == "strongest" else settings.isolation
        told = {
            "isolation": self.isolation,
            "packages": packages,
            "memory": settings.memory_mib << 20,
            "processes": settings.processes,
            "disk": settings.disk_mib << 20,
        }
        ours, theirs = socket.socketpair()
        folders = [str(_ROOM.parent), str(_ROOM)]
        flags = ["-P", "-B"] if packages else ["-S", "-P", "-B"]
        self._process = subprocess.Popen(
            [sys.executable, *flags, "-c", _BOOT, *folders, json.dumps(told)],
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=_ENVIRONMENT,
            cwd="/",
        )
        theirs.close()
        self.channel = Channel(ours)
        self._imported: set[str] = set()
        self.walls: tuple[str, ...] = tuple(self._first_word())

    def _first_word(self) -> list[str]:
        try:
            said = self.channel.receive(_START_SECONDS)
        except Ended as error:
            self.close()
            raise SandboxError(f"a worker of the sandbox ended while it started: {error}") from error
        if said is None:
            self.close()
            raise SandboxError(f"a worker of the sandbox was not ready within {_START_SECONDS:g} s")
        if "failed" in said:
            self.close()
            raise self.refused(said["failed"])
        return list(said["ready"])

    def refused(self, why: str) -> RefusedError:
        """What to say where it cannot confine anything here."""
        return RefusedError(why, "none" if self.isolation == "rlimits" else "rlimits")

    def begin(self, spec: dict[str, Any], seconds: float, streams: Sequence[int] = ()) -> socket.socket:
        """Begin a job, hand it what it is to do, and wait until it is about to: the socket by which it answers.

        Raises:
            UnbegunError: the worker is gone.
            UnconfinedError: its walls could not be built, or it did not come so far.
        """
        frame = json.dumps(spec).encode()
        ours, theirs = socket.socketpair()
        ours.settimeout(_BEGIN_SECONDS)
        with theirs:
            try:
                self._send({"job": seconds, "with": True}, (theirs.fileno(), *streams))
            except SandboxError as error:
                ours.close()
                raise UnbegunError(error.message) from error
        try:
            ours.sendall(struct.pack(">Q", len(frame)) + frame)
            word = ours.recv(1)
            if word == b"R":
                return ours
            reason = (word + ours.recv(4096)).decode(errors="replace").removeprefix("F") if word else "it ended"
        except OSError as error:
            reason = str(error)
        ours.close()
        if self._gone():
            raise UnbegunError(f"a worker of the sandbox is gone: {reason}")
        raise UnconfinedError(f"a job could not be confined: {reason}")

    def _gone(self) -> bool:
        """Whether a job did not begin because it is no longer there; if it is, it soon says that the job is over."""
        try:
            self.channel.receive(_OVER_SECONDS)
        except Ended:
            return True
        return False

    def end(self, *, stop: bool = False) -> End:
        """Wait for the end of the job, after ending it if ``stop``.

        Raises:
            SandboxError: the worker is gone, or does not answer.
        """
        if stop:
            self._send({"kill": True})
        said = self._answer(_END_SECONDS)
        return End(said["why"], said["status"], said["processor"])

    def alive(self) -> bool:
        """Whether it is still there, between jobs: it then says nothing unasked."""
        return not readable(self.channel.connection, 0.0)

    def bring(self, module: str) -> str | None:
        """Import an installed module, once: why it could not be, or None."""
        if module in self._imported:
            return None
        self._send({"import": module})
        failed = self._answer(_IMPORT_SECONDS)["imported"]
        if failed is None:
            self._imported.add(module)
        return None if failed is None else str(failed)

    def _send(self, said: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
        try:
            self.channel.send(said, descriptors)
        except Ended as error:
            raise SandboxError(f"a worker of the sandbox is gone: {error}") from error

    def _answer(self, seconds: float) -> dict[str, Any]:
        try:
            said = self.channel.receive(seconds)
        except Ended as error:
            raise SandboxError(f"a worker of the sandbox is gone: {error}") from error
        if said is None:
            raise SandboxError(f"a worker of the sandbox did not answer within {seconds:g} s")
        return said

    def close(self) -> None:
        """End it and all that it runs."""
        self.channel.close()
        end = time.monotonic() + _FAREWELL_SECONDS
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_FAREWELL_SECONDS / 5)
        if self._process.poll() is None:
            self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(max(0.0, end - time.monotonic()))
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def close_all(descriptors: Sequence[int]) -> None:
    """Close descriptors."""
    for descriptor in descriptors:
        os.close(descriptor)
