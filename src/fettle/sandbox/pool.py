"""The pool: threads that each own a worker or two and run what any thread or event loop asks for."""

import asyncio
import atexit
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TypeVar

from pydantic import JsonValue

from fettle.config import SandboxSettings
from fettle.errors import ConfigError, SandboxError, ScorerError, ScorerTimeout
from fettle.sandbox import functions, programs
from fettle.sandbox.outcome import Isolation, Outcome, Reply
from fettle.sandbox.selftest import examine
from fettle.sandbox.worker import RefusedError, UnbegunError, UnconfinedError, Worker

_T = TypeVar("_T")

WEAKER = {
    "namespaces": "a filter of system calls where there is none for this processor",
    "rlimits": "a file system, processes and a network of its own, and a bound on the memory of many processes",
    "none": "every wall",
}
"""Weaker isolation by name, and what it lacks."""


class _Lane:
    """One thread's workers: one for programs, one for installed functions, each made when it is first needed."""

    def __init__(self, settings: SandboxSettings) -> None:
        self._settings = settings
        self._workers: dict[bool, Worker] = {}

    def worker(self, *, packages: bool) -> Worker:
        """A worker that passed its examination."""
        if packages in self._workers and not self._workers[packages].alive():
            self._workers.pop(packages).close()
        if packages not in self._workers:
            worker = Worker(self._settings, packages=packages)
            try:
                if self._settings.isolation == "strongest" and "seccomp" not in worker.walls:
                    raise RefusedError("system calls of this processor are not known here", weaker="namespaces")
                examine(worker)
            except UnconfinedError as error:
                worker.close()
                raise worker.refused(error.message) from error
            except BaseException:
                worker.close()
                raise
            self._workers[packages] = worker
        return self._workers[packages]

    def discard(self) -> None:
        """Whatever was done last, the next job finds a new worker."""
        while self._workers:
            self._workers.popitem()[1].close()


_Work = tuple[Callable[[_Lane], object], "Future[object]"]


class Sandbox:
    """Runs what nobody vouches for, each program in walls of its own. Usable from any thread and event loop."""

    def __init__(self, settings: SandboxSettings) -> None:
        self.settings = settings
        self._queue: SimpleQueue[_Work | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._isolation: Isolation | None = None
        self.closed = False
        """Whether it was closed; what is asked for then is refused."""

    async def run(
        self,
        source: str,
        *,
        stdin: bytes = b"",
        files: Mapping[str, bytes] | None = None,
        argv: Sequence[str] = (),
        seconds: float | None = None,
        packages: Sequence[str] = (),
    ) -> Outcome:
        """Run a Python program, in a folder that holds ``files`` and is gone afterwards.

        It has the standard library; ``packages`` are installed modules that it finds imported, with all that they need.

        Raises:
            SandboxError: it could not be run; nothing is said of the program.
            ConfigError: code cannot be isolated here as the settings ask; or a package cannot be imported.
        """
        spec = programs.specification(source, files or {}, argv)
        limit, output = self._limits(seconds)
        return await self._done(
            lambda lane: programs.run(lane.worker(packages=bool(packages)), spec, stdin, limit, output, packages)
        )

    async def calls(
        self, source: str, function: str, arguments: Sequence[Sequence[JsonValue]], *, seconds: float | None = None
    ) -> list[Reply]:
        """What ``function``, defined by ``source``, returns for each of ``arguments``.

        ``seconds`` is the time of one call; all together have four times that. What is right is never told inside:
        whoever asks compares.

        Raises:
            SandboxError: they could not be made; nothing is said of the function.
            ConfigError: code cannot be isolated here as the settings ask.
        """
        limit, output = self._limits(seconds)
        return await self._done(
            lambda lane: functions.calls(lane.worker(packages=False), source, function, arguments, limit, output)
        )

    async def trusted(
        self, function: str, *arguments: JsonValue, seconds: float | None = None, packages: Sequence[str] = ()
    ) -> JsonValue:
        """What an installed function, ``package.module:function``, returns that is given text nobody vouches for.

        ``packages`` are modules that it works with by name, and finds imported: inside nothing can be any more.

        Raises:
            ScorerError: the function cannot be imported, or failed.
            ScorerTimeout: it took longer than ``seconds``.
            SandboxError: it could not be called.
            ConfigError: code cannot be isolated here as the settings ask.
        """
        return await self._done(self._trusted(function, arguments, seconds, packages))

    def returned(self, function: str, *arguments: JsonValue, seconds: float | None = None) -> JsonValue:
        """As ``trusted``, for whoever has no event loop."""
        return self._submitted(self._trusted(function, arguments, seconds)).result()

    async def close(self) -> None:
        """End all workers; what is asked for afterwards is refused."""
        await asyncio.to_thread(self.end)

    def end(self, patience: float = 10.0) -> None:
        """As ``close``, for whoever has no event loop; work in hand is waited for so many seconds."""
        with self._lock:
            self.closed = True
            threads, self._threads = self._threads, []
        for _ in threads:
            self._queue.put(None)
        end = time.monotonic() + patience
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))

    def isolation(self) -> Isolation:
        """What confines code here.

        Raises:
            ConfigError: nothing that is as strong as the settings ask.
            SandboxError: a worker could not be started, or its walls do not hold.
        """
        worker_there: Callable[[_Lane], object] = lambda lane: lane.worker(packages=False)  # noqa: E731
        if self._isolation is None:
            self._submitted(worker_there).result()
        assert self._isolation is not None
        return self._isolation

    def _trusted(
        self, function: str, arguments: Sequence[JsonValue], seconds: float | None, packages: Sequence[str] = ()
    ) -> Callable[[_Lane], JsonValue]:
        limit, output = self._limits(seconds)
        return lambda lane: functions.trusted(lane.worker(packages=True), function, arguments, limit, output, packages)

    def _limits(self, seconds: float | None) -> tuple[float, int]:
        return (self.settings.seconds if seconds is None else seconds), self.settings.output_kib << 10

    async def _done(self, work: Callable[[_Lane], _T]) -> _T:
        return await asyncio.wrap_future(self._submitted(work))

    def _submitted(self, work: Callable[[_Lane], _T]) -> "Future[_T]":
        future: Future[_T] = Future()
        with self._lock:
            if self.closed:
                raise SandboxError("the sandbox was closed: ask for a new one")
            if not self._threads:
                count = self.settings.workers or os.cpu_count() or 1
                self._threads = [threading.Thread(target=self._serve, daemon=True) for _ in range(count)]
                for thread in self._threads:
                    thread.start()
            self._queue.put((work, future))  # type: ignore[arg-type]  # a future of what the work returns
        return future

    def _serve(self) -> None:
        """What a thread does until it is told of an end."""
        lane = _Lane(self.settings)
        while (item := self._queue.get()) is not None:
            work, future = item
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(self._worked(work, lane))
            except (ScorerError, ScorerTimeout) as error:  # the worker did all it should
                future.set_exception(error)
            except BaseException as error:  # noqa: BLE001  raised where it is waited for; the worker is not used again
                lane.discard()
                future.set_exception(error)
        lane.discard()

    def _worked(self, work: Callable[[_Lane], object], lane: _Lane) -> object:
        try:
            if self._isolation is None:
                worker = lane.worker(packages=False)
                self._isolation = Isolation(worker.isolation, worker.walls)
            try:
                return work(lane)
            except UnbegunError:  # it died as it was asked
                lane.discard()
                return work(lane)
        except RefusedError as error:
            raise _refusal(error) from error


def _refusal(error: RefusedError) -> ConfigError:
    names = list(WEAKER)
    weaker = names[names.index(error.weaker) :]
    named = "; or ".join(f"isolation: {name}, which lacks {WEAKER[name]}" for name in weaker)
    return ConfigError(f"code cannot be isolated here ({error}): allow it on this machine, or name {named}")


_LAST_PATIENCE = 2.0
"""Seconds, at the end of the process; whatever is left then goes with it."""
_SANDBOXES: dict[tuple[int, SandboxSettings], Sandbox] = {}
_LOCK = threading.Lock()


def sandbox(settings: SandboxSettings | None = None) -> Sandbox:
    """The sandbox of these settings, one for the whole process; its workers start when they are first needed."""
    wanted = (os.getpid(), settings or SandboxSettings())  # a process that was forked off has none of its parent's
    with _LOCK:
        found = _SANDBOXES.get(wanted)
        if found is None or found.closed:
            found = _SANDBOXES[wanted] = Sandbox(wanted[1])
        return found


def isolation(settings: SandboxSettings | None = None) -> Isolation:
    """What would confine code here.

    Raises:
        ConfigError: nothing that is as strong as the settings ask.
        SandboxError: a worker could not be started, or its walls do not hold.
    """
    return sandbox(settings).isolation()


@atexit.register
def _end_all() -> None:
    for (process, _), one in list(_SANDBOXES.items()):
        if process == os.getpid():
            one.end(_LAST_PATIENCE)
