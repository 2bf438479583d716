"""The SDK's environment, and a cluster."""

from collections.abc import Iterator

import pytest

from .apart import PACKAGES, Apart
from .api_server import Api, api_server


def check_packages() -> None:
    if not (PACKAGES / "kserve").is_dir():
        pytest.skip("no KServe SDK: ./run setup puts its packages into the environment")


@pytest.fixture(scope="session")
def apart(tmp_path_factory) -> Iterator[Apart]:
    check_packages()
    process = Apart(tmp_path_factory.mktemp("apart"))
    yield process
    process.close()


@pytest.fixture
def api(tmp_path) -> Iterator[Api]:
    with api_server(tmp_path) as api:
        yield api


@pytest.fixture
def fettle(apart, api):
    """Types a command of ``fettle deploy`` that asks the cluster."""
    return lambda *arguments: apart.fettle("deploy", *arguments, "--kubeconfig", api.kubeconfig)
