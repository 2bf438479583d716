"""What a job may use up: limits of each process, and who counts what all its processes use together."""

import contextlib
import math
import os
import resource
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

_PAGE = os.sysconf("SC_PAGE_SIZE")
_DESCRIPTORS, _STACK, _SIGNALS = 128, 64 << 20, 256
SPARE_PROCESSES = 4
"""Beyond those a job may have, so that one that has too many is seen before it is refused more."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a worker is told when it starts."""

    isolation: str
    packages: bool
    memory: int
    processes: int
    disk: int


def restrict_process(settings: Settings, seconds: float) -> None:
    """Limits of this process, which all it starts have, each for itself."""
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: settings.disk,
        resource.RLIMIT_NOFILE: _DESCRIPTORS,
        resource.RLIMIT_STACK: _STACK,
        resource.RLIMIT_MEMLOCK: 0,
    }
    if sys.platform == "linux":
        limits |= {
            resource.RLIMIT_AS: _own_size() + settings.memory,
            resource.RLIMIT_NPROC: settings.processes + SPARE_PROCESSES,
            resource.RLIMIT_MSGQUEUE: 0,
            resource.RLIMIT_SIGPENDING: _SIGNALS,
        }
    for limit, value in limits.items():
        most = resource.getrlimit(limit)[1]
        value = value if most == resource.RLIM_INFINITY else min(value, most)
        resource.setrlimit(limit, (value, value))
    processor = math.ceil(seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (processor, processor + 1))


def _own_size() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * _PAGE


class Count(Protocol):
    """Tells what a job uses while it runs."""

    def begin(self) -> None:
        """A new job starts."""

    def exceeded(self) -> str | None:
        """Which limit it went beyond, if any: ``memory`` or ``processes``."""


class Watchdog:
    """Satisfies ``Count`` by adding up what the processes of this namespace say of themselves."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._mine = 0

    def begin(self) -> None:
        """A new job starts."""
        self._mine = _anonymous(os.getpid())

    def exceeded(self) -> str | None:
        """Pages of this process that its copies still share with it are not counted."""
        me, memory, tasks = os.getpid(), 0, 0
        for name in os.listdir("/proc"):  # noqa: PTH208  many times a second
            if name.isdigit() and int(name) != me:
                # One that ends meanwhile has no files any longer.
                with contextlib.suppress(OSError, ValueError):
                    tasks += len(os.listdir(f"/proc/{name}/task"))  # noqa: PTH208
                    memory += max(0, _anonymous(int(name)) - self._mine)
        if memory > self._settings.memory:
            return "memory"
        return "processes" if tasks > self._settings.processes + OWN_PROCESSES else None


OWN_PROCESSES = 1
"""The first process of a job's namespace, which is none of its own."""


def _anonymous(process: int) -> int:
    """Bytes of memory that belong to no file."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    fields = (line.split() for line in lines if line.startswith(("RssAnon:", "RssShmem:", "VmSwap:")))
    return sum(int(field[1]) for field in fields) * 1024
