"""Studies of a plain function of two settings, which takes no time."""

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from fettle.config.study import Study
from fettle.tuning import Desk, StudyFolder

SPACE = {
    "rate": {"type": "float", "low": 1e-5, "high": 1e-1, "log": True},
    "size": {"type": "int", "low": 2, "high": 16, "step": 2},
}


def new_study(root: Path, *, name: str = "study", steps: int = 9, **settings: object) -> Desk:
    """A new one, in a folder below ``root``."""
    study = Study.model_validate({"space": SPACE, "trials": 6, **settings})
    return Desk.at(StudyFolder.create(root, name, recipe="", study=""), study, steps=steps)


@pytest.fixture
def begun(tmp_path: Path) -> Callable[..., Desk]:
    """Begins studies."""
    numbers = itertools.count()
    return lambda **settings: new_study(tmp_path, name=f"study-{next(numbers)}", **settings)
