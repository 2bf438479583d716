"""Another policy is read while the one before answers, in bounded time and of bounded size."""

import os
import shutil
import zipfile
from pathlib import Path

import pytest

from fettle.config.routing import RoutingConfig
from fettle.errors import CheckpointError, TimeoutError
from fettle.router import loading
from fettle.router import registry as registry_module
from fettle.router.files import METADATA, POLICY
from fettle.router.loading import Adviser
from fettle.router.promotion import rollback
from fettle.router.registry import IN_USE
from tests.router.asking import HARD, until

LARGEST = 2**20

fifos = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")


def adviser(**settings):
    return Adviser(RoutingConfig(**{"exposure": "shadow", "reload_s": 0.0, "time_limit_s": 0.02, **settings}))


@pytest.fixture
def hanging(registry):
    """A function that an adviser's version 2 gives way to version 1 with, in a file that hangs until it is called."""
    in_use = registry / IN_USE
    kept = in_use.read_bytes()
    rollback(registry, who="me")
    pointer = in_use.read_bytes()
    in_use.write_bytes(kept)
    asked = adviser(registry=str(registry))
    until(lambda: asked(HARD).version == 2)
    in_use.unlink()
    os.mkfifo(in_use)
    yield asked, lambda: in_use.write_bytes(pointer)
    if in_use.is_fifo():
        os.close(os.open(in_use, os.O_RDWR | os.O_NONBLOCK))  # whoever waits there goes on


@fifos
def test_while_another_is_read_the_one_before_answers(hanging):
    asked, arrive = hanging
    assert [asked(HARD).version for _ in range(5)] == [2] * 5
    arrive()
    until(lambda: asked(HARD).version == 1)


@fifos
def test_another_that_takes_too_long_is_none_and_neither_is_the_one_before(hanging, monkeypatch):
    asked, arrive = hanging
    assert asked(HARD).version == 2
    monkeypatch.setattr(loading, "LOAD_S", 0.01)

    def answer():
        try:
            return asked(HARD).version
        except TimeoutError as error:
            return error.message

    until(lambda: answer() == "its files took longer than 0.01 s to be read")
    arrive()
    until(lambda: answer() == 1)


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(registry_module, "LARGEST", LARGEST)


@pytest.fixture
def folder(runs, tmp_path):
    return Path(shutil.copytree(runs / "best", tmp_path / "run"))


def sparse(path):
    path.unlink()
    path.touch()
    os.truncate(path, LARGEST + 1)


def packed(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for at in range(3):
            archive.writestr(f"{at}.npy", bytes(LARGEST // 2))
    assert path.stat().st_size < LARGEST // 100


@pytest.mark.parametrize(("name", "enlarge"), [(POLICY, sparse), (METADATA, sparse), (POLICY, packed)])
def test_files_that_are_too_large_are_not_read(folder, name, enlarge):
    asked = adviser(policy=str(folder), time_limit_s=60.0)
    assert asked(HARD).version is None
    enlarge(folder / name)
    os.utime(folder / POLICY)
    with pytest.raises(CheckpointError, match=f"{name} is larger than 1 MiB, and no policy is"):
        asked(HARD)


@pytest.mark.parametrize("name", [IN_USE, f"versions/000002/{METADATA}"])
def test_nor_are_those_of_a_registry(registry, name):
    asked = adviser(registry=str(registry), time_limit_s=60.0)
    assert asked(HARD).version == 2
    sparse(registry / name)
    os.utime(registry / IN_USE)
    with pytest.raises(CheckpointError, match="is larger than 1 MiB, and no policy is"):
        asked(HARD)
