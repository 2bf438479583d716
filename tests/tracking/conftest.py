"""A run folder, and a disk that is full."""

import contextlib
import resource
from collections.abc import Iterator

import pytest

from fettle.tracking import RunFolder


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    return RunFolder.at(tmp_path / "run")


@contextlib.contextmanager
def _files_no_longer_than(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def files_no_longer_than():
    """Within it the operating system refuses what goes beyond so many bytes of one file."""
    return _files_no_longer_than
