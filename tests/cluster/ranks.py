"""Ranks that the tests of one module share: to begin them takes longer than most tests."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fettle.config import PolicySpec, RayEngine, SamplingParams, TinyModel
from fettle.engine.base import SampleRequest
from fettle.engine.local import make_tiny_model

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


def heard_and_cut(backend, folder: Path) -> None:
    """Draws whose watches hear of their tokens, and of which one ends early; they are long enough for that."""
    model = make_tiny_model(
        TinyModel(hidden=32, layers=1, heads=2, context=2048), folder / "long", texts=["1 + 2 ="] * 9
    )
    backend.create_policy("long", PolicySpec(model=model))
    pin, _ = backend.pin("long")
    told: list[list[tuple[int, int]]] = [[], []]

    def watch(place: int, index: int, token: int, logprob: float) -> bool:
        told[place].append((index, token))
        return place == 0 or len(told[place]) < 3

    params = SamplingParams(max_tokens=2000, end_tokens=False)
    whole, cut = backend.sample([pin] * 2, [SampleRequest([5], 2, params, partial(watch, place)) for place in range(2)])
    for index, completion in enumerate(whole):
        assert [token for at, token in told[0] if at == index] == list(completion.tokens)
        assert len(completion.tokens) == 2000
    assert len(told[1]) == 3
    assert all(len(each.tokens) < 2000 for each in cut)
    backend.close_policy("long")


def cleared(backend):
    """The same, with what an earlier test left gone."""
    for policy in list(backend._recall._pasts):
        backend.close_policy(policy)
    for folder in backend._checkpoints.glob("*"):
        shutil.rmtree(folder)
    return backend
