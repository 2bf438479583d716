"""Ranks that the tests of one module share: to begin them takes longer than most tests."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fettle.config import RayEngine

BESIDE_OTHERS = "PYTEST_XDIST_WORKER" in os.environ
"""Whether this process has other tests to run: among them Ray's actors were seen to end as they begin."""

ROOM = 5
"""Processors of the cluster: two ranks that are kept, the place that one of them has moved from, two for a test."""

TRAINERS = {"ray.io/node-group": "trainers"}
"""What the cluster's one machine is labelled."""

PATIENCE = 250.0

KEPT: list[Any] = []


@contextmanager
def ray_here() -> Iterator[None]:
    """A cluster with room for all tests, which all modules of this process share; it ends with the process."""
    ray = pytest.importorskip("ray")
    if not ray.is_initialized():
        os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_worker_niceness": "0"}
        folder = tempfile.mkdtemp(prefix="fettle-")  # short: for sockets
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        ray.init(
            address="local",
            num_cpus=ROOM,
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=80 << 20,
            _temp_dir=folder,
            num_gpus=2,
            labels=TRAINERS,
        )
    yield


@contextmanager
def ranks(workers: int, checkpoints: Path, *, threads: int = 1, start_seconds: float = PATIENCE, **settings):
    """A backend of so many ranks, with one thread each, on the cluster that is there.

    Two with nothing special about them are kept for the next module: their checkpoints are where the first had them.
    """
    from fettle.cluster.backend import ClusterBackend  # noqa: PLC0415

    usual = (workers, threads, start_seconds, settings) == (2, 1, PATIENCE, {})
    if usual and KEPT:
        yield cleared(KEPT[0])
        return
    backend = ClusterBackend(
        RayEngine(workers=workers, threads=threads, start_seconds=start_seconds, **settings), checkpoints=checkpoints
    )
    if usual:
        KEPT.append(backend)
        atexit.register(backend.close)
    try:
        yield backend
    finally:
        if not usual:
            backend.close()


def cleared(backend):
    """The same, with what an earlier test left gone."""
    for policy in list(backend._recall._pasts):
        backend.close_policy(policy)
    for folder in backend._checkpoints.glob("*"):
        shutil.rmtree(folder)
    return backend
