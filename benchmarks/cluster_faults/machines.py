"""Machines that go, from under a rank: nodes of Ray that are processes here, each with room for one rank."""

import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster

from benchmarks.cluster_faults import runs
from benchmarks.cluster_faults.runs import made, settings
from benchmarks.cluster_faults.struck import Strike
from benchmarks.cluster_faults.trials import Found, alone, emptied, say
from fettle.cluster.backend import ClusterBackend
from fettle.config import RayEngine

KIND = "GRPO, an adapter"
WAIT_S = 60.0
PREEMPTION = 2
"""As Ray numbers the reasons for which a node drains."""
ROOM: dict[str, Any] = {"object_store_memory": 80 << 20, "include_dashboard": False}


class Machines:
    """A head without room, and others."""

    def __init__(self, count: int) -> None:
        self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **ROOM})
        self._nodes: dict[str, Any] = {}
        for _ in range(count):
            self.add()
        ray.init(address=self._cluster.address, log_to_driver=False, logging_level="ERROR")

    def add(self) -> None:
        """One more."""
        node = self._cluster.add_node(num_cpus=1, **ROOM)
        self._nodes[node.node_id] = node

    def remove(self, node: str) -> None:
        """With -9."""
        self._cluster.remove_node(self._nodes.pop(node), allow_graceful=False)

    def warn(self, node: str) -> None:
        """Tell Ray that it is about to go, as ``ray drain-node`` does."""
        client = ray._raylet.GcsClient(address=self._cluster.address)
        deadline = int((time.time() + WAIT_S) * 1000)
        client.drain_node(node, PREEMPTION, "it will be taken away", deadline)

    def close(self) -> None:
        """End them all."""
        ray.shutdown()
        self._cluster.shutdown()


@contextmanager
def machines(count: int) -> Iterator[Machines]:
    """So many, which end with the block."""
    with tempfile.TemporaryDirectory(prefix="fettle-", ignore_cleanup_errors=True) as folder:
        os.environ["RAY_TMPDIR"] = folder
        (Path(folder) / "ray").mkdir()
        found = Machines(count)
        try:
            yield found
        finally:
            found.close()
            del os.environ["RAY_TMPDIR"]


def of_nodes(folder: Path, kills: int, chance: random.Random) -> Found:
    """A machine with a rank is removed; another has room."""
    found = Found("a machine with a rank; another has room")
    with machines(3) as there, _ranks(folder) as backend:
        name = runs.model(folder / "model")
        expected = alone(backend, KIND, name, folder)
        for number in range(kills):

            def gone(place: int = chance.randrange(2)) -> Callable[[], None]:
                return lambda: there.remove(_under(backend, place))

            at = chance.randrange(len(expected.told))
            strike = Strike(gone, chance.uniform(0, expected.told[at].seconds))
            place = emptied(folder / "checkpoints", folder / f"run-{number}")
            found.add(made(backend, settings(KIND, name), place, strikes={at: strike}), expected)
            say(found, KIND)
            there.add()
    return found


def of_nodes_without_room(folder: Path, kills: int, chance: random.Random) -> Found:
    """A machine with a rank is removed, and none has room: fewer ranks go on."""
    found = Found("a machine with a rank; none has room")
    name = runs.model(folder / "model")
    for own in (folder / str(number) for number in range(kills)):
        own.mkdir()
        with machines(2) as there, _ranks(own, start_seconds=30.0) as backend:
            expected = alone(backend, KIND, name, own)
            at = chance.randrange(len(expected.told))
            strike = Strike(lambda: lambda: there.remove(_under(backend, chance.randrange(2))), 0.01)
            place = emptied(own / "checkpoints", own / "run")
            found.add(made(backend, settings(KIND, name), place, strikes={at: strike}), expected, bits=False)
            assert len(backend.facts()) == 1
            say(found, KIND)
    found.notes = {"start_seconds": 30}
    return found


def of_notices(folder: Path, kills: int, chance: random.Random) -> Found:
    """Ray is told that a machine with a rank drains; once the rank has left it, the machine is removed."""
    found, written, left = Found("a notice that a machine with a rank drains"), list[float](), list[float]()
    with machines(3) as there, _ranks(folder) as backend:
        name = runs.model(folder / "model")
        expected = alone(backend, KIND, name, folder)
        for number in range(kills):

            def warned(place: int = chance.randrange(2)) -> Callable[[], None]:
                node = _under(backend, place)

                def kill() -> None:
                    there.warn(node)
                    written.append(_waited(lambda: not list(backend._recall.unwritten())))
                    left.append(_waited(lambda: node not in _nodes(backend)))
                    there.remove(node)

                return kill

            at = chance.randrange(len(expected.told) // 2)
            place = emptied(folder / "checkpoints", folder / f"run-{number}")
            strike = Strike(warned, chance.uniform(0.01, expected.told[at].seconds))
            found.add(made(backend, settings(KIND, name), place, strikes={at: strike}), expected)
            say(found, KIND)
            there.add()
    found.notes = {"written_after_seconds": max(written), "given_up_after_seconds": max(left)}
    return found


@contextmanager
def _ranks(folder: Path, start_seconds: float = 600.0) -> Iterator[ClusterBackend]:
    engine = RayEngine(workers=2, threads=1, start_seconds=start_seconds, repeated_seconds=0.3)
    backend = ClusterBackend(engine, checkpoints=folder / "checkpoints")
    try:
        yield backend
    finally:
        backend.close()


def _nodes(backend: ClusterBackend) -> list[str | None]:
    return [backend._ranks._node(bundle) for bundle in list(backend._ranks._actors)]


def _under(backend: ClusterBackend, place: int) -> str:
    node = _nodes(backend)[place]
    assert node is not None, "the ranks have begun"
    return node


def _waited(so: Callable[[], bool]) -> float:
    """Seconds until it was so."""
    started = time.perf_counter()
    while not so():
        if time.perf_counter() - started > WAIT_S:
            raise SystemExit(f"not within {WAIT_S:g} s")
        time.sleep(0.02)
    return round(time.perf_counter() - started, 2)
