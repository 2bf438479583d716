"""A worker: started with an empty environment, it confines itself, then a copy of it is each job.

It never sees what a job is: no program, no input and no output passes through it, so no job finds another's in its
memory. It is told a number and is handed descriptors, and tells how the job ended.
"""

import gc
import importlib
import json
import os
import random
import select
import signal
import site
import socket
import struct
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from fettle.sandbox.inside import jobs, kernel, root, seccomp, syscalls
from fettle.sandbox.inside.cgroups import Group, made
from fettle.sandbox.inside.limits import Count, Settings, Watchdog
from fettle.sandbox.inside.wire import Channel, Ended

_LOOK_EVERY = 0.02
_SLACK = 30.0
"""Whoever waits for the job ends it in time, counted from when its walls stood; this is for who cannot."""
_ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "HOME": str(root.WORK),
    "TMPDIR": "/tmp",
    "LANG": "C.UTF-8",
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
}
_AT_HAND = (
    "bisect collections contextlib copy dataclasses datetime enum functools heapq io itertools json math operator os "
    "random re string sys threading time traceback typing"
)
"""What programs usually import, so that they need not read it each time. All else costs every copy a little."""


def main() -> None:
    """Be a worker until the other side of standard input closes it."""
    settings = Settings(**json.loads(sys.argv.pop()))
    os.umask(0o022)
    channel = Channel(socket.socket(fileno=os.dup(0)))
    os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
    site.setquit()
    for name in _AT_HAND.split():
        importlib.import_module(name)
    try:
        _confined(settings, channel)
    except Ended:
        pass
    except OSError as error:
        with suppress(Ended):
            channel.send({"failed": str(error)})


def _confined(settings: Settings, channel: Channel) -> None:
    if settings.isolation != "namespaces":
        if sys.platform == "linux":
            kernel.adopt_orphans()  # which die of no namespace's end; it is this process that ends them
        _serve(channel, _walls_without_namespaces(settings))
        return
    if kernel.machine() not in syscalls.MACHINES:
        raise OSError(f"the numbers of system calls on {kernel.machine()} are not known here")
    as_root = _may_be_another()
    group = made(settings)
    flags = kernel.NEW_OF_ALL_BUT_USERS if as_root else kernel.NEW_OF_ALL_BUT_USERS | kernel.NEWUSER
    user = os.geteuid(), os.getegid()
    child = kernel.clone(flags)
    if child == 0:
        _first_of_its_namespace(settings, channel, group, None if as_root else user)
    channel.connection.close()
    _wait_for(child)
    group.remove()


def _may_be_another() -> bool:
    """Whether this is root, and may become the user that jobs belong to."""
    if os.geteuid() != 0:
        return False
    ranges = [[int(number) for number in line.split()] for line in Path("/proc/self/uid_map").read_text().splitlines()]
    return any(first <= jobs.USER < first + count for first, _, count in ranges)


def _wait_for(child: int) -> None:
    """Stay behind, outside, to clear away; whoever started this one takes the child with it."""

    def stop(number: int, frame: FrameType | None) -> None:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)

    signal.signal(signal.SIGTERM, stop)
    kernel.die_with_parent(signal.SIGTERM)
    os.waitpid(child, 0)


def _first_of_its_namespace(settings: Settings, channel: Channel, group: Group, user: tuple[int, int] | None) -> None:
    """Take leave of the machine's files and rights, then serve."""
    try:
        kernel.die_with_parent(signal.SIGKILL)
        if user is not None:
            jobs.map_user(user)
        devices = root.DEVICES if group.counts_memory else root.UNCOUNTED_DEVICES
        root.enter(root.readable(settings.packages), root.hidden(settings.packages), devices)
        if user is None:
            jobs.become_another()
            kernel.die_with_parent(signal.SIGKILL)  # which a change of user forgets
        kernel.gain_nothing()
        kernel.drop_capabilities()
        kernel.set_dumpable(True)  # or the files in which a job maps its user are not its own
        program = seccomp.filter_of(kernel.machine(), counted=group.counts_memory)
        below = root.below_tmp(settings.packages)
        walls = jobs.Walls(settings, program, kernel.landlock_version() > 0, devices, group=group, below_tmp=below)
        _serve(channel, walls)
    except Ended:
        pass
    except Exception as error:  # noqa: BLE001  told to who waits for a worker; it is not one
        with suppress(Ended):
            channel.send({"failed": f"{type(error).__name__}: {error}"})
    os._exit(0)


def _walls_without_namespaces(settings: Settings) -> jobs.Walls:
    if settings.isolation == "none" or sys.platform != "linux":
        return jobs.Walls(settings, None, False, root.DEVICES)
    if os.geteuid() == 0 and (closed := root.closed(settings.packages)):
        raise OSError(f"{closed} is closed to the user that code of root's runs as")
    readable = [str(path) for path in root.readable(settings.packages)]
    program = seccomp.filter_of(kernel.machine(), counted=False)
    return jobs.Walls(settings, program, kernel.landlock_version() > 0, root.UNCOUNTED_DEVICES, readable)


# --- serving --------------------------------------------------------------------------------------


def _serve(channel: Channel, walls: jobs.Walls) -> None:
    os.environ.clear()
    os.environ.update(_ENVIRONMENT)
    random.seed(0)  # where every program's random numbers begin: the same program does the same
    sys.executable = str(root.INTERPRETER)
    os.umask(0o077)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    count = _count(walls)
    channel.send({"ready": _names(walls, count)})
    _settle()
    while True:
        said = channel.receive()
        if said is None or "kill" in said:  # of a job that ended before it was asked to
            continue
        if "import" in said:
            channel.send(_imported(said["import"]))
        else:
            channel.send(_job(channel, walls, count, said["job"], said["descriptors"]))


def _settle() -> None:
    """Leave what is there untouched by the collector: pages that are not written to are shared with every job."""
    gc.collect()
    gc.freeze()
    gc.disable()


def _count(walls: jobs.Walls) -> Count | None:
    if walls.settings.isolation != "namespaces":
        return None
    return walls.group if walls.group is not None and walls.group.counts_memory else Watchdog(walls.settings)


def _names(walls: jobs.Walls, count: Count | None) -> list[str]:
    """The walls, in words."""
    if walls.settings.isolation == "none":
        return []
    namespaces = walls.settings.isolation == "namespaces"
    found = {
        "user, pid, mount, network, ipc, uts and cgroup namespaces": namespaces,
        "seccomp": walls.filter is not None,
        "landlock": walls.landlock,
        "rlimits": True,
        "cgroup": isinstance(count, Group),
        "watchdog": isinstance(count, Watchdog),
    }
    return [name for name, is_there in found.items() if is_there]


def _imported(module: str) -> dict[str, Any]:
    try:
        importlib.import_module(module)
    except BaseException as error:  # noqa: BLE001  an installed package's own; told to who asked for it
        return {"imported": f"{type(error).__name__}: {error}"[:2000]}
    _settle()
    return {"imported": None}


def _job(channel: Channel, walls: jobs.Walls, count: Count | None, seconds: float, descriptors: list[int]) -> Any:
    """Run one job to its end: how it ended, and what it used."""
    if count is not None:
        count.begin()
    try:
        child, told, folder = jobs.started(walls, seconds, descriptors)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    try:
        why = _watched(channel, told, count, time.monotonic() + seconds + _SLACK)
    except Ended:
        if folder is not None:
            os.killpg(child, signal.SIGKILL)
            jobs.clear(folder)
        raise
    if why is not None:
        with suppress(ProcessLookupError):
            (os.kill if folder is None else os.killpg)(child, signal.SIGKILL)
    _, _, used = os.wait4(child, 0)
    if count is not None and why is None:
        why = count.exceeded()
    status = os.read(told, 4)
    os.close(told)
    if folder is not None:
        jobs.clear(folder)
    return {
        "why": why,
        "status": struct.unpack("=i", status)[0] if len(status) == 4 else None,
        "processor": used.ru_utime + used.ru_stime,
    }


def _watched(channel: Channel, told: int, count: Count | None, end: float) -> str | None:
    """Wait until the job ended by itself, and then None; or until it is to be ended, and then why."""
    while True:
        left = end - time.monotonic()
        if left <= 0:
            return "timeout"
        ready = select.select([told, channel.fileno()], [], [], min(left, _LOOK_EVERY))[0]
        if told in ready:
            return None
        if channel.fileno() in ready or channel.waiting():
            channel.receive()
            return "asked"
        if not ready and count is not None and (why := count.exceeded()):
            return why
