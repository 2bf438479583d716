"""The Ray cluster that an engine runs on: one that is there, or one of its own that ends with it."""

import logging
import os
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import ray

from fettle.config import RayEngine, RayWorkers
from fettle.errors import UnreachableError

STORE_BYTES = 256 << 20
"""For the data of calls, in a cluster of our own."""

REACHED_S = 5.0
"""In which something that speaks as clusters do must answer at an address; Ray by itself would try for minutes."""

GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
"""How HTTP/2 begins, which Ray speaks: whoever does answers it."""

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_worker_niceness": "0",
}
"""Ray tells nobody of us, warns of nothing that is so on purpose, and its workers wait behind no other process."""

PLACE = "fettle-ray-"


def connected(settings: RayEngine | RayWorkers, *, processors: int, named: str = "engine") -> Callable[[], None]:
    """See to it that this process is on the cluster; returns how it is left, which ends one of our own.

    A process that is on a cluster already stays on that. The settings are ``named`` so in recipes.

    Raises:
        UnreachableError: there is no cluster at the address, or none can be started.
    """
    if ray.is_initialized():
        return lambda: None
    os.environ.update(QUIET)
    if settings.address is not None:
        check_reached(settings.address, named=f"{named}.address")
        _begin(_away(settings.address, f"{named}.address"), named, address=settings.address)
        return partial(_leave, None)
    _remove_deserted()
    folder = tempfile.mkdtemp(prefix=f"{PLACE}{os.getpid()}-")
    leave = partial(_leave, folder)

    try:
        _begin(
            "no Ray cluster can be started here",
            named,
            address="local",
            num_cpus=processors,
            include_dashboard=False,
            object_store_memory=STORE_BYTES,
            _temp_dir=folder,
        )
    except UnreachableError:
        leave()
        raise
    return leave


def check_reached(address: str, *, named: str) -> None:
    """Refuses a cluster that is not there, within ``REACHED_S`` seconds; ``auto`` is found by Ray.

    Raises:
        UnreachableError: nobody answers at the address, which the setting that is ``named`` so holds.
    """
    if address == "auto":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        raise UnreachableError(f"{named} is {address}: write auto, HOST:PORT or ray://HOST:PORT")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=REACHED_S) as there:
            there.sendall(GREETING)
            there.recv(1)
    except (OSError, OverflowError) as error:
        said = getattr(error, "strerror", None) or str(error)
        raise UnreachableError(
            f"{_away(address, named)} ({said}): start one with `ray start --head`, correct the address, or leave it "
            "out to have one of the run's own"
        ) from error


@contextmanager
def heard() -> Iterator[None]:
    """Ray takes SIGTERM for itself when it begins: who heard it before, such as a run that saves, hears it still."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if callable(before) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def free(need: Mapping[str, float]) -> str:
    """How much the cluster has left of what is needed, in words."""
    there, left = ray.cluster_resources(), ray.available_resources()
    return ", ".join(f"{left.get(name, 0):g} of {there.get(name, 0):g} {name}" for name in need)


def labelled(labels: Mapping[str, str]) -> str:
    """Which machines will do, in words; empty: all."""
    return f" on machines labelled {', '.join(f'{name}={value}' for name, value in labels.items())}" if labels else ""


def _away(address: str, named: str) -> str:
    return f"{named} is {address}, where no cluster of Ray answers"


def _leave(folder: str | None) -> None:
    ray.shutdown()
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_deserted() -> None:
    """What clusters left whose processes were killed: Ray ends with the process that began it, and its files do not."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PLACE}*"):
        owner = folder.name.removeprefix(PLACE).partition("-")[0]
        try:
            os.kill(int(owner), 0)
        except ProcessLookupError:
            shutil.rmtree(folder, ignore_errors=True)
        except (ValueError, OSError):
            continue


def _begin(fault: str, named: str, **how: object) -> None:
    try:
        with heard():
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **how)
    except Exception as error:
        with suppress(Exception):  # it may be half begun
            ray.shutdown()
        why = str(error).strip().splitlines()
        raise UnreachableError(
            f"{fault} ({why[0] if why else type(error).__name__}): start one with `ray start --head`, correct the "
            f"address, or leave {named}.address out to have one of the run's own"
        ) from error
