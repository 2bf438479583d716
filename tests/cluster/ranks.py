"""Ranks that the tests of one module share: to begin them takes longer than most tests."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fettle.config import RayEngine

BESIDE_OTHERS = "PYTEST_XDIST_WORKER" in os.environ
"""Whether this process has other tests to run: among them Ray's actors were seen to end as they begin."""


@contextmanager
def ray_here(**more: object) -> Iterator[None]:
    """A cluster with room for all tests, which ends with the block."""
    ray = pytest.importorskip("ray")
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_worker_niceness": "0"}
    with tempfile.TemporaryDirectory(prefix="fettle-", ignore_cleanup_errors=True) as folder:  # short: for sockets
        ray.init(
            address="local",
            num_cpus=8,
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=80 << 20,
            _temp_dir=folder,
            **more,
        )
        try:
            yield
        finally:
            ray.shutdown()


@contextmanager
def ranks(workers: int, checkpoints: Path, *, threads: int = 1, start_seconds: float = 250.0, **settings):
    """A backend of so many ranks, with one thread each, on the cluster that is there."""
    from fettle.cluster.backend import ClusterBackend  # noqa: PLC0415

    backend = ClusterBackend(
        RayEngine(workers=workers, threads=threads, start_seconds=start_seconds, **settings), checkpoints=checkpoints
    )
    try:
        yield backend
    finally:
        backend.close()


def cleared(backend):
    """The same, with what an earlier test left gone."""
    for policy in list(backend._recall._pasts):
        backend.close_policy(policy)
    for folder in backend._checkpoints.glob("*"):
        shutil.rmtree(folder)
    return backend
