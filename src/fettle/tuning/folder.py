"""A study's folder: what is in it, who works in it, and one at a time where that is needed."""

import contextlib
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from fettle.errors import NotFoundError, StorageError
from fettle.tracking import RunFolder, write_atomically
from fettle.tracking.atomic import unwritable
from fettle.tracking.claim import hold

PAUSE = 0.02


@dataclass(frozen=True, slots=True)
class StudyFolder:
    """Where everything that a study leaves is found."""

    path: Path

    @classmethod
    def create(cls, root: Path, name: str, *, recipe: str, study: str) -> "StudyFolder":
        """A new folder in ``root``, named for the study and the moment, with the recipe and the study in it.

        Raises:
            StorageError: it could not be made.
        """
        folder = cls(RunFolder.create(root, name).path)
        for inner in (folder.trials, folder.finals, folder.workers):
            inner.mkdir()
        write_atomically(folder.recipe_path, recipe)
        write_atomically(folder.study_path, study)
        return folder

    @classmethod
    def open(cls, path: Path) -> "StudyFolder":
        """A study's folder that is there already.

        Raises:
            NotFoundError: it is not one.
        """
        folder = cls(path)
        if not (folder.study_path.is_file() and folder.recipe_path.is_file()):
            raise NotFoundError(f"{path} is no study's folder, for it has no study.yaml and recipe.yaml: name another")
        return folder

    @property
    def recipe_path(self) -> Path:
        """The recipe, with every setting."""
        return self.path / "recipe.yaml"

    @property
    def study_path(self) -> Path:
        """The study, with every setting."""
        return self.path / "study.yaml"

    @property
    def trials(self) -> Path:
        """A run folder for each trial."""
        return self.path / "trials"

    @property
    def finals(self) -> Path:
        """A run folder for each run that compares the best settings with the recipe's own."""
        return self.path / "finals"

    @property
    def workers(self) -> Path:
        """Who works on it, and what they say."""
        return self.path / "workers"

    @property
    def summary_path(self) -> Path:
        """How it stands, for programs."""
        return self.path / "study.json"

    @property
    def table_path(self) -> Path:
        """A line for each trial."""
        return self.path / "trials.csv"

    @property
    def chart_path(self) -> Path:
        """The trials, drawn."""
        return self.path / "study.png"

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else is in such a block of this study meanwhile; of one that was killed in it nothing is left."""
        with _opened(self.path / ".lock") as file:
            while not hold(file):
                time.sleep(PAUSE)
            yield

    @contextlib.contextmanager
    def worker(self) -> Iterator[str]:
        """A name under which to work here, that is known to be at work until the block, or the process, ends."""
        name = uuid.uuid4().hex
        path = self._presence(name)
        try:
            with _opened(path) as file:
                hold(file)
                yield name
        finally:
            path.unlink(missing_ok=True)

    def is_at_work(self, worker: str) -> bool:
        """Whether the process that goes by that name is alive."""
        path = self._presence(worker)
        try:
            with path.open("rb") as file:
                alive = not hold(file)
        except FileNotFoundError:
            return False
        if not alive:
            path.unlink(missing_ok=True)
        return alive

    def _presence(self, worker: str) -> Path:
        return self.workers / f"{worker}.lock"


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("ab")
    except OSError as error:
        raise StorageError(unwritable(path, error)) from error
