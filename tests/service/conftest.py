"""Services to be asked: one a module, one a test, and processes that can be killed."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fettle.config import TinyModel
from fettle.engine.local import make_tiny_model
from fettle.service.audit import Audit
from tests.service.databases import database_url, postgres, store
from tests.service.served import Client, Served, Spawned, serving

__all__ = ["database_url", "postgres", "store"]

SETTINGS = TinyModel(hidden=32, layers=2, heads=2, context=64)
TEXTS = ["one two three four five six seven eight"] * 9


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a model."""
    return make_tiny_model(SETTINGS, tmp_path_factory.mktemp("model") / "tiny", texts=TEXTS)


@pytest.fixture
def served(tmp_path: Path, tiny_model: str) -> Iterator[Served]:
    """A service of the test's own."""
    with serving(tmp_path / "state", tiny_model) as found:
        yield found


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, tiny_model: str) -> Iterator[Served]:
    """A service that the tests of a module share."""
    with serving(tmp_path_factory.mktemp("service") / "state", tiny_model) as found:
        yield found


@pytest.fixture
def client(shared: Served) -> Iterator[Client]:
    """A tenant of the shared service."""
    with shared.client() as found:
        yield found


@pytest.fixture
def spawned(tmp_path: Path, tiny_model: str) -> Iterator[Callable[..., Spawned]]:
    """Starts ``fettle serve`` in a process of its own, on a state folder of the test's."""
    running: list[Spawned] = []

    def start(*arguments: str) -> Spawned:
        running.append(Spawned(tmp_path / "state", tiny_model, *arguments))
        return running[-1].start()

    yield start
    for each in running:
        each.close()


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def audit(store, tmp_path) -> Audit:
    return Audit(store, tmp_path)
