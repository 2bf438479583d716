"""Running a program on a worker: its streams are read up to a bound, and its time is kept."""

import os
import selectors
import signal
import time
from collections.abc import Mapping, Sequence
from typing import Any, cast

from fettle.errors import ConfigError, SandboxError
from fettle.sandbox.inside.program import MAIN
from fettle.sandbox.outcome import Ending, Outcome
from fettle.sandbox.worker import End, Worker, close_all

_PIECE = 1 << 16


def specification(source: str, files: Mapping[str, bytes], argv: Sequence[str]) -> dict[str, Any]:
    """What a job is told that runs a program.

    Raises:
        SandboxError: a file would lie elsewhere than in the program's folder, or in the program's place.
    """
    for name in files:
        parts = name.split("/")
        if name == MAIN or not name or "\0" in name or any(part in ("", ".", "..") for part in parts):
            raise SandboxError(f"{name!r} cannot be a file of a program: name it by a path below the program's folder")
    told = {name: data.decode("latin-1") for name, data in files.items()}
    return {"kind": "run", "source": source, "files": told, "argv": list(argv)}


def run(
    worker: Worker, spec: dict[str, Any], stdin: bytes, seconds: float, output: int, packages: Sequence[str] = ()
) -> Outcome:
    """Run a program to its end.

    Raises:
        SandboxError: it could not be begun, or the worker is gone.
        ConfigError: a package cannot be imported.
    """
    for module in packages:
        if (why := worker.bring(module)) is not None:
            raise ConfigError(f"{module} cannot be imported for a program in the sandbox ({why}): install it")
    pipes = [os.pipe() for _ in range(3)]
    theirs = [pipes[0][0], pipes[1][1], pipes[2][1]]
    ours = [pipes[0][1], pipes[1][0], pipes[2][0]]
    try:
        try:
            worker.begin(spec, seconds, theirs).close()
        finally:
            close_all(theirs)
        streams = _Streams(ours, stdin, output)
        began = time.monotonic()
        ending = streams.watched(worker, began + seconds)
        end = worker.end(stop=ending is not None)
        took = time.monotonic() - began
        streams.drain()
        return _outcome(worker, streams, ending, end, took)
    finally:
        close_all(ours)


def _outcome(worker: Worker, streams: "_Streams", ending: Ending | None, end: End, took: float) -> Outcome:
    code = None if end.status is None else os.waitstatus_to_exitcode(end.status)
    if ending is None:
        ending = cast(Ending, end.why) if end.why else _own_ending(code)
    told = code if ending in ("exited", "killed") else None
    stdout, stderr = (bytes(kept) for kept in streams.kept)
    return Outcome(ending, told, stdout, stderr, took, end.processor, worker.isolation)


def _own_ending(code: int | None) -> Ending:
    if code == -signal.SIGXCPU:
        return "timeout"
    return "exited" if code is not None and code >= 0 else "killed"


class _Streams:
    """The ends of a program's standard streams that are ours."""

    def __init__(self, ours: Sequence[int], stdin: bytes, most: int) -> None:
        self.kept = (bytearray(), bytearray())
        self._stdin = memoryview(stdin)
        self._write, *self._read = ours
        self._most = most
        for descriptor in ours:
            os.set_blocking(descriptor, False)

    def watched(self, worker: Worker, end: float) -> Ending | None:
        """Read and write until the program ended, and then None; or until it is to be ended, and then why."""
        with selectors.DefaultSelector() as selector:
            selector.register(worker.channel, selectors.EVENT_READ)
            for descriptor in self._read:
                selector.register(descriptor, selectors.EVENT_READ)
            if self._stdin:
                selector.register(self._write, selectors.EVENT_WRITE)
            else:
                self._finish_input()
            while (left := end - time.monotonic()) > 0:
                for key, _ in selector.select(left):
                    if key.fileobj is worker.channel:
                        return None
                    if not self._moved(key.fd):
                        selector.unregister(key.fd)
                if any(len(kept) > self._most for kept in self.kept):
                    return "output"
        return "timeout"

    def _moved(self, descriptor: int) -> bool:
        """Move what can be moved; whether there may be more."""
        if descriptor != self._write:
            return self._take(self._read.index(descriptor))
        try:
            self._stdin = self._stdin[os.write(self._write, self._stdin[:_PIECE]) :]
        except BrokenPipeError:
            self._stdin = self._stdin[:0]
        if not self._stdin:
            self._finish_input()
        return bool(self._stdin)

    def _finish_input(self) -> None:
        """The program is to find the end of its input; the descriptor's number stays ours to close."""
        nothing = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        os.dup2(nothing, self._write, inheritable=False)
        os.close(nothing)

    def _take(self, which: int) -> bool:
        try:
            piece = os.read(self._read[which], _PIECE)
        except BlockingIOError:
            return False
        self.kept[which].extend(piece)
        return bool(piece)

    def drain(self) -> None:
        """Take what the program left in its pipes, up to the bound; nobody is left who could write more."""
        for which, kept in enumerate(self.kept):
            while len(kept) <= self._most and self._take(which):
                pass
            del kept[self._most :]
