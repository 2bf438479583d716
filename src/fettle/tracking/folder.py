"""A run's folder: what is in it, and that no two runs share one."""

import itertools
import json
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from fettle.errors import ConfigError, NotFoundError, StorageError
from fettle.tracking.atomic import unwritable, write_atomically
from fettle.tracking.provenance import launch

NAME = re.compile(r"\w[\w.-]*")


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Where everything that a run leaves is found."""

    path: Path

    @classmethod
    def create(cls, root: Path, name: str) -> "RunFolder":
        """A new folder in ``root``, named for the run and the moment; of two made at once, one gets a number.

        Raises:
            ConfigError: ``name`` cannot be part of a folder's name.
            StorageError: the folder could not be made.
        """
        if not NAME.fullmatch(name):
            raise ConfigError(
                f"name is {name!r}, and a folder is named for it: use letters, digits, dots, dashes and underscores"
            )
        try:
            root.mkdir(parents=True, exist_ok=True)
            path = _unshared(root / f"{name}-{datetime.now():%Y%m%d-%H%M%S}")
        except OSError as error:
            raise StorageError(unwritable(root, error)) from error
        return cls(path)

    @classmethod
    def at(cls, path: Path) -> "RunFolder":
        """The run folder at ``path``, made if it is not there.

        Raises:
            StorageError: it could not be made.
        """
        folder = cls(path)
        for inner in (folder.checkpoints, folder.transcripts):
            try:
                inner.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StorageError(unwritable(inner, error)) from error
        return folder

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """A run folder that is there already.

        Raises:
            NotFoundError: it is not one.
        """
        folder = cls(path)
        if not folder.config_path.is_file():
            raise NotFoundError(
                f"{path} is no run folder, for it has no config.yaml: see fettle runs for those there are"
            )
        return folder

    @property
    def config_path(self) -> Path:
        """The resolved recipe, which replays the run."""
        return self.path / "config.yaml"

    @property
    def metrics_path(self) -> Path:
        """One JSON object a row."""
        return self.path / "metrics.jsonl"

    @property
    def failures_path(self) -> Path:
        """One JSON object an episode that broke; not there while none has."""
        return self.path / "failures.jsonl"

    @property
    def progress_path(self) -> Path:
        """Where the run stands, as of its newest checkpoint."""
        return self.path / "progress.json"

    @property
    def provenance_path(self) -> Path:
        """What the run was made with."""
        return self.path / "provenance.json"

    @property
    def summary_path(self) -> Path:
        """How the run ended."""
        return self.path / "summary.json"

    @property
    def report_path(self) -> Path:
        """The same, for people."""
        return self.path / "report.md"

    @property
    def curves_path(self) -> Path:
        """The metrics, drawn."""
        return self.path / "curves.png"

    @property
    def profile_path(self) -> Path:
        """Where the seconds of its steps went; only there where a recipe asks for it."""
        return self.path / "profile.json"

    @property
    def profile_chart_path(self) -> Path:
        """The same, drawn."""
        return self.path / "profile.png"

    @property
    def checkpoints(self) -> Path:
        """One folder a checkpoint."""
        return self.path / "checkpoints"

    @property
    def transcripts(self) -> Path:
        """One page an evaluation."""
        return self.path / "transcripts"

    @property
    def evaluations(self) -> Path:
        """Every held-out episode: one file an evaluation, one JSON object a line."""
        return self.path / "evaluations"

    def discard_unbegun(self) -> None:
        """Take the folder away if no step of the run, and no evaluation, has left anything in it."""
        if not any((*self.path.rglob(self.metrics_path.name), *self.path.rglob(self.progress_path.name))):
            shutil.rmtree(self.path, ignore_errors=True)

    def write_config(self, text: str) -> None:
        """Leave the recipe."""
        write_atomically(self.config_path, text)

    def write_provenance(
        self, command: Sequence[str], *, threads: int | None = None, data: Iterable[Path] = ()
    ) -> None:
        """Leave what this start of the run is made with, after those before it; ``data`` are files to be hashed."""
        launches = [*self.launches(), launch(command, threads=threads, data=data)]
        write_atomically(self.provenance_path, json.dumps({"launches": launches}, indent=2) + "\n")

    def launches(self) -> list[dict[str, Any]]:
        """Every start of the run, the first one first."""
        found = read_object(self.provenance_path).get("launches")
        return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object that may not be there, or not be whole; empty then."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _unshared(path: Path) -> Path:
    """A folder that nobody else has made: ``path``, or the first free number after it."""
    for number in itertools.count(1):
        candidate = path if number == 1 else path.with_name(f"{path.name}-{number}")
        try:
            candidate.mkdir()
        except FileExistsError:
            continue
        return candidate
    raise AssertionError("there is always another number")
