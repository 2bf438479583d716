"""The Ray cluster that an engine runs on: one that is there, or one of its own that ends with it."""

import logging
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import ray

from fettle.config import RayEngine, RayWorkers
from fettle.errors import UnreachableError

STORE_BYTES = 256 << 20
"""For the data of calls, in a cluster of our own."""

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_worker_niceness": "0",
}
"""Ray tells nobody of us, warns of nothing that is so on purpose, and its workers wait behind no other process."""


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
        fault = f"no Ray cluster can be reached at {named}.address {settings.address}"
        _begin(fault, named, address=settings.address)
        return partial(_leave, None)
    folder = tempfile.mkdtemp(prefix="fettle-ray-")
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


def _leave(folder: str | None) -> None:
    ray.shutdown()
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


def _begin(fault: str, named: str, **how: object) -> None:
    try:
        with _stopped_as_before():
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **how)
    except Exception as error:
        why = str(error).strip().splitlines()
        raise UnreachableError(
            f"{fault} ({why[0] if why else type(error).__name__}): start one with `ray start --head`, correct the "
            f"address, or leave {named}.address out to have one of the run's own"
        ) from error


@contextmanager
def _stopped_as_before() -> Iterator[None]:
    """Ray ends a process that gets SIGTERM at once, where a run would save a checkpoint first."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
