"""A tiny model and a client of a real engine."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fettle.compat.signal import SignalClient, local_client
from fettle.config import LocalEngine, TinyModel
from fettle.engine.local import make_tiny_model

from .mrlm.guessing import Guessing


@pytest.fixture
def guessing() -> Guessing:
    return Guessing()


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    return make_tiny_model(TinyModel(hidden=32, layers=1, heads=2), folder, texts=["hello there, thank you"] * 9)


@pytest.fixture
def client(tmp_path: Path) -> Iterator[SignalClient]:
    with local_client(tmp_path / "checkpoints", engine=LocalEngine(threads=1)) as made:
        yield made
