"""A backend at some of whose operations a process is killed, and what every operation came to."""

import dataclasses
import hashlib
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import psutil

OPERATIONS = frozenset(
    {
        "create_policy",
        "load_policy",
        "forward",
        "forward_backward",
        "optim_step",
        "pin",
        "unpin",
        "sample",
        "logprobs",
        "save",
        "close_policy",
    }
)


class Strike(NamedTuple):
    """Whom an operation strikes."""

    victim: Callable[[], Callable[[], None] | None]
    """Chosen as the operation begins; how it is killed."""
    after: float
    """Seconds after the operation has begun; 0: before it begins."""


class Told(NamedTuple):
    """An operation that ended."""

    name: str
    came_to: str
    seconds: float


class Struck:
    """Satisfies ``Backend``: another one, told apart by nothing but the strikes at operations of these numbers."""

    def __init__(self, backend: Any, strikes: Mapping[int, Strike] | None = None) -> None:
        self._backend = backend
        self._strikes = dict(strikes or {})
        self._killed_at: list[float] = []
        self._threads: list[threading.Timer] = []
        self._lock = threading.Lock()
        self._under_way = ""
        self.told: list[Told] = []
        self.during: list[str] = []
        """The operation that was under way at each kill; empty between two."""
        self.recovered: list[float] = []
        """Seconds from each kill until the next operation had ended."""

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._backend, name)
        if name not in OPERATIONS:
            return found

        def struck(*positional: Any, **named: Any) -> Any:
            return self._carried_out(name, found, positional, named)

        return struck

    def settle(self) -> None:
        """Wait for kills that are still to come."""
        for thread in self._threads:
            thread.join()

    def _carried_out(self, name: str, work: Callable[..., Any], positional: Sequence[Any], named: Any) -> Any:
        strike = self._strikes.pop(len(self.told), None)
        kill = strike.victim() if strike is not None else None
        if strike is not None and kill is not None and strike.after:
            self._threads.append(threading.Timer(strike.after, self._kill, [kill]))
            self._threads[-1].start()
        elif kill is not None:
            self._kill(kill)
        started, self._under_way = time.perf_counter(), name
        result = work(*positional, **named)
        ended, self._under_way = time.perf_counter(), ""
        with self._lock:
            self.told.append(Told(name, gist(name, result), ended - started))
            self.recovered += [ended - at for at in self._killed_at]
            self._killed_at = []
        return result

    def _kill(self, kill: Callable[[], None]) -> None:
        started = time.perf_counter()
        with self._lock:
            self.during.append(self._under_way)
        kill()  # of a machine that takes a while, in which operations may end that do not suffer from it
        with self._lock:
            self._killed_at.append(started)


def processes(kind: str) -> list[psutil.Process]:
    """Actors of that kind that live on this machine, begun by this process or on a cluster that it began."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if f"ray::{kind}" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def killer(kind: str, place: int) -> Callable[[], Callable[[], None] | None]:
    """Finds one of the actors of a kind, and kills it with -9."""

    def found() -> Callable[[], None] | None:
        there = processes(kind)
        if not there:
            return None
        pid = there[place % len(there)].pid

        def kill() -> None:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                return

        return kill

    return found


def gist(name: str, result: Any) -> str:
    """What counts of what an operation came to; files and names are compared where they are."""
    if name in ("save", "unpin", "close_policy"):
        return ""
    counted = result[1] if name == "pin" else result
    return hashlib.sha256(repr(_plain(counted)).encode()).hexdigest()[:16]


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.shape, value.tobytes()
    if dataclasses.is_dataclass(value):
        counted = [field.name for field in dataclasses.fields(value) if field.name != "seconds"]
        return [_plain(getattr(value, name)) for name in counted]
    if isinstance(value, Mapping):
        return sorted((key, _plain(each)) for key, each in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain(each) for each in value]
    return value
