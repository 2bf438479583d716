"""A job's processes: the first of its namespaces builds its walls and waits; the second runs the program."""

import os
import resource
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fettle.sandbox.inside import kernel, landlock, program
from fettle.sandbox.inside.cgroups import Group
from fettle.sandbox.inside.limits import Settings, restrict_process
from fettle.sandbox.inside.root import INSIDE, SHARED, WORK, bind

CONTROL, STATUS = 3, 4
"""Descriptors of a job, after standard input, output and error: what it is told, and where its end is told."""
USER = 61001
"""Whom jobs belong to where the worker is started by root: a number that no account should have."""
_BYTES_A_FILE = 16 << 10
"""There may be one file for each so many bytes of disk."""
_HEARING_SECONDS, _CLEARING_SECONDS, _PIECE = 5.0, 5.0, 1 << 16
_FLAGS = kernel.NOSUID | kernel.NODEV | kernel.NOEXEC


@dataclass(frozen=True, slots=True)
class Walls:
    """What confines each job, decided once when a worker starts."""

    settings: Settings
    filter: bytes | None
    """Of system calls."""
    landlock: bool
    devices: Sequence[str]
    readable: Sequence[str] = ()
    """Where there is no root of its own: what a job may read."""
    group: Group | None = None
    below_tmp: Sequence[str] = ()
    """What of a job's root is seen in its own ``/tmp`` as well."""


def started(walls: Walls, seconds: float, descriptors: Sequence[int]) -> tuple[int, int, str | None]:
    """Begin a job: the id of its first process, where the program's end is told, and a folder to remove afterwards."""
    told, tell = os.pipe()
    folder = None
    if walls.settings.isolation == "namespaces":
        user = os.geteuid(), os.getegid()
        child = _cloned(descriptors[0])
        build: Callable[[], None] = lambda: _namespaces(walls, user, seconds)  # noqa: E731
    else:
        folder = f"/tmp/fettle-sandbox-{os.urandom(8).hex()}"
        Path(folder).mkdir(0o700)
        child = os.fork()
        build = lambda: _limits_only(walls, str(folder), seconds)  # noqa: E731
    if child == 0:
        _first(walls, build, descriptors, tell)
    os.close(tell)
    return child, told, folder


def _cloned(control: int) -> int:
    try:
        return kernel.clone(kernel.NEWUSER | kernel.NEW_OF_ALL_BUT_USERS)
    except OSError as error:
        _tell(os.dup(control), f"F{error}")
        raise


def _first(walls: Walls, build: Callable[[], None], descriptors: Sequence[int], tell: int) -> None:
    """What the first process does, to its end."""
    control = descriptors[0]
    try:
        if walls.group is not None:
            walls.group.enter()
        _take(descriptors, tell)
        control = CONTROL
        os.setsid()
        build()
        # Not by os.fork, whose hooks touch many pages of a process that has no threads to mend.
        child = kernel.clone(0) if walls.settings.isolation == "namespaces" else os.fork()
    except BaseException as error:  # noqa: BLE001  it is told to who waits for the program's first word
        _tell(control, f"F{type(error).__name__}: {error}")
        os._exit(1)
    if child == 0:
        os.close(STATUS)
        if walls.settings.isolation == "namespaces":
            os.setsid()
        if sys.platform == "linux":
            kernel.set_dumpable(True)  # its own files in /proc are its own again; those of the first process are not
        program.main(socket.socket(fileno=CONTROL))
    for descriptor in range(STATUS):
        os.close(descriptor)
    _wait_for(child)


def _tell(descriptor: int, failure: str) -> None:
    """Say it, and hear the other side out: closed before that, it might not be delivered."""
    with suppress(OSError), socket.socket(fileno=descriptor) as control:
        control.sendall(failure.encode())
        control.shutdown(socket.SHUT_WR)
        control.settimeout(_HEARING_SECONDS)
        while control.recv(_PIECE):
            pass


def _take(descriptors: Sequence[int], tell: int) -> None:
    """Put the descriptors where a program expects them, and close all others."""
    nothing = os.open("/dev/null", os.O_RDWR)
    control, *streams = descriptors
    streams = streams or [nothing] * 3
    # First out of the way: some of them may lie where others are to be.
    apart = [_moved(each) for each in (*streams, control, tell)]
    for place, descriptor in enumerate(apart):
        os.dup2(descriptor, place)
    os.closerange(STATUS + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def _moved(descriptor: int) -> int:
    while descriptor <= STATUS:
        descriptor = os.dup(descriptor)
    return descriptor


def _wait_for(child: int) -> None:
    """Bury everything that ends, until ``child`` does; then end, and with this process its namespace."""
    while True:
        ended, status = os.wait()
        if ended == child:
            os.write(STATUS, struct.pack("=i", status))
            os._exit(0)


def _namespaces(walls: Walls, user: tuple[int, int], seconds: float) -> None:
    kernel.die_with_parent(signal.SIGKILL)
    map_user(user)
    disk = f"size={walls.settings.disk},nr_inodes={walls.settings.disk // _BYTES_A_FILE},mode=755"
    kept = [(Path(place), os.open(place, os.O_PATH)) for place in walls.below_tmp]
    kernel.mount("tmpfs", "/tmp", "tmpfs", _FLAGS, disk)
    for place, descriptor in kept:
        bind(Path(f"/proc/self/fd/{descriptor}"), place)
        os.close(descriptor)
    kernel.mount("proc", "/proc", "proc", _FLAGS, "subset=pid")
    for folder in (WORK, SHARED):
        folder.mkdir(exist_ok=True)
    os.chdir(WORK)
    kernel.set_host_name("sandbox")
    restrict_process(walls.settings, seconds)
    kernel.drop_capabilities()
    kernel.gain_nothing()
    if walls.landlock:
        landlock.restrict(["/"], ["/tmp", *(f"/dev/{device}" for device in walls.devices)])
    kernel.set_dumpable(False)
    if walls.filter is not None:
        kernel.filter_system_calls(walls.filter)


def map_user(user: tuple[int, int]) -> None:
    """The user of this namespace is the one that started it, by another number."""
    maps = {"setgroups": "deny", "uid_map": f"{INSIDE} {user[0]} 1", "gid_map": f"{INSIDE} {user[1]} 1"}
    for name, text in maps.items():
        Path(f"/proc/self/{name}").write_text(text)


def _limits_only(walls: Walls, folder: str, seconds: float) -> None:
    os.chdir(folder)
    if walls.settings.isolation == "none":
        return
    if os.geteuid() == 0:
        os.chown(folder, USER, USER)
        become_another()
    restrict_process(walls.settings, seconds)
    if sys.platform != "linux":
        return
    kernel.die_with_parent(signal.SIGKILL)
    kernel.drop_capabilities()
    kernel.gain_nothing()
    if walls.landlock:
        devices = [f"/dev/{device}" for device in walls.devices]
        landlock.restrict(list(walls.readable), [folder, *devices])
    if walls.filter is not None:
        kernel.filter_system_calls(walls.filter)


def become_another() -> None:
    """Be root no longer, but the user that jobs belong to."""
    os.setgroups([])
    os.setresgid(USER, USER, USER)
    os.setresuid(USER, USER, USER)


def clear(folder: str) -> None:
    """End what a job left that had no namespaces, and take its folder away."""
    end = time.monotonic() + _CLEARING_SECONDS
    while _children_left() and time.monotonic() < end:
        for child in _children():
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
    with suppress(OSError):
        _remove(Path(folder))


def _remove(folder: Path) -> None:
    """A folder with all it holds; of links, only the links."""
    with suppress(PermissionError):
        folder.chmod(0o700)
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            _remove(path)
        else:
            path.unlink()
    folder.rmdir()


def _children_left() -> bool:
    """Whether there are any, after those that ended were buried."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def _children() -> list[int]:
    """Of this process, to which those come whose own parents ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # The name, which may hold anything, stands in brackets before the state and the parent.
            if int(path.read_text().rpartition(")")[2].split()[1]) == os.getpid():
                found.append(int(path.parent.name))
    return found
