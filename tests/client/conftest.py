from collections.abc import Iterator

import pytest
import pytest_asyncio

from fettle.config import TinyModel
from fettle.engine.local import make_tiny_model
from tests.service.served import Served, serving

from .raw import raw_server


@pytest_asyncio.fixture
async def raw():
    async with raw_server() as server:
        yield server


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> str:
    """The folder of a model."""
    settings = TinyModel(hidden=32, layers=2, heads=2, context=128)
    return make_tiny_model(settings, tmp_path_factory.mktemp("model") / "tiny", texts=["one two three"] * 9)


@pytest.fixture(scope="module")
def served(tmp_path_factory, tiny_model) -> Iterator[Served]:
    """A service that the tests of a module share."""
    with serving(tmp_path_factory.mktemp("service") / "state", tiny_model) as found:
        yield found
