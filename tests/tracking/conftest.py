"""A run folder."""

import pytest

from fettle.tracking import RunFolder


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    return RunFolder.at(tmp_path / "run")
