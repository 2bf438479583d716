"""A file of trajectories that grows by an episode at a time, and from which collecting can go on."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from fettle.errors import ConfigError, StorageError
from fettle.rollouts.trajectories import line, recorded
from fettle.tracking.atomic import unwritable, write_atomically
from fettle.tracking.claim import hold
from fettle.tracking.lines import write
from fettle.types import Failed, Trajectory

ABOUT = "fettle.collection"
VERSION = 1


@dataclass(frozen=True, slots=True)
class Broken:
    """An episode that failed, by its name."""

    episode: str
    task: str
    reason: str


class Collection:
    """Trajectories in a file, each there as soon as its episode is over; beside it, what they were collected with.

    Whoever opens it again with the same settings finds the episodes that are ``done``. Those that failed are told
    beside the file, and may be tried again.

    Raises:
        ConfigError: the file was collected with other settings, or is none that was collected.
        StorageError: it cannot be written, or another process is writing it.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path = path
        self.failures: list[Broken] = []
        """Of this time."""
        self._settings = json.loads(json.dumps(dict(settings)))
        self._check()
        self._file = self._opened()
        try:
            self.done = self._found()
            self._write_about()
        except BaseException:
            self._file.close()
            raise

    @property
    def about(self) -> Path:
        """The file beside it: settings and failures."""
        return self.path.with_name(f"{self.path.name}.about.json")

    def add(self, episode: str, sides: Sequence[Trajectory]) -> None:
        """Keep what came of an episode: one trajectory, or one of each side of a game; all of them, or none.

        Raises:
            DataError: the task holds something that is not JSON.
            StorageError: they could not be written.
        """
        written = b"".join(line(side, episode=episode) for side in sides)
        before = self._file.seek(0, 2)
        try:
            write(self._file, written)
        except OSError as error:
            self._file.truncate(before)
            raise StorageError(unwritable(self.path, error)) from error
        self.done.add(episode)

    def failed(self, episode: str, failure: Failed) -> None:
        """Keep that an episode failed."""
        self.failures.append(Broken(episode, failure.task.id, failure.reason))

    def close(self) -> None:
        """Let go of the file, and leave the failures beside it.

        Raises:
            StorageError: they could not be written.
        """
        try:
            self._write_about()
        finally:
            self._file.close()

    def _check(self) -> None:
        if not self.path.exists() or not self.path.stat().st_size:
            return
        kept = _settings_in(self.about)
        if kept is None:
            raise ConfigError(
                f"{self.path} is there already, and {self.about.name}, which says how it was collected, is not: "
                "name another file"
            )
        changed = _difference(kept, self._settings)
        if changed:
            raise ConfigError(
                f"{self.path} was collected with other settings ({changed}): name another file, or leave them as they "
                "were to go on with this one"
            )

    def _opened(self) -> BinaryIO:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = self.path.open("ab", buffering=0)
        except OSError as error:
            raise StorageError(unwritable(self.path, error)) from error
        if not hold(file):
            file.close()
            raise StorageError(f"{self.path} is being written by another process: wait for it, or name another file")
        return file

    def _found(self) -> set[str]:
        """The episodes in the file, from which one that is not whole is taken out first."""
        found = list(recorded(self.path))
        lines = self.path.read_bytes().splitlines(keepends=True)
        if lines and not lines[-1].endswith(b"\n"):
            lines.pop()
            del found[len(lines) :]
            # What was cut short may have been one more side of the same game.
            half = found[-1].episode if found and found[-1].trajectory.player else None
            while found and found[-1].episode == half:
                found.pop()
                lines.pop()
            self._file.truncate(sum(map(len, lines)))
        return {each.episode for each in found}

    def _write_about(self) -> None:
        failures = [
            {"episode": broken.episode, "task": broken.task, "reason": broken.reason} for broken in self.failures
        ]
        told = {"schema": ABOUT, "version": VERSION, "settings": self._settings, "failures": failures}
        write_atomically(self.about, json.dumps(told, indent=1) + "\n")


def _settings_in(path: Path) -> Mapping[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    settings = found.get("settings") if isinstance(found, dict) and found.get("schema") == ABOUT else None
    return settings if isinstance(settings, dict) else None


def _difference(kept: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """The first setting that is another one, and how."""
    for name in dict.fromkeys((*kept, *given)):
        if kept.get(name) != given.get(name):
            return f"{name}: {json.dumps(kept.get(name))} there, {json.dumps(given.get(name))} here"
    return ""
