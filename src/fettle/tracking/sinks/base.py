"""What a sink of numbers is, which there are, and how one is opened."""

import importlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from fettle.errors import ConfigError, FettleError, StorageError
from fettle.tracking.base import Transcript
from fettle.tracking.sinks.line import PATIENCE_S, Line

logger = logging.getLogger(__name__)

EXTRAS: Mapping[str, str] = MappingProxyType(
    {"wandb": "wandb", "mlflow": "mlflow", "tensorboard": "tensorboard", "prometheus": "server", "otlp": "otel"}
)
"""Sinks by name, and the extra of this package that brings what each needs; ``datadog`` and ``events`` need none."""


@dataclass(frozen=True, slots=True)
class Described:
    """What a sink is told of a run before it begins."""

    name: str
    description: str
    tags: tuple[str, ...]
    project: str
    """Under which it is filed."""
    entity: str
    """Whose it is; empty: the sink's own choice."""
    settings: Mapping[str, object]
    """Of the run, by dotted names."""
    simulated: bool
    facts: Mapping[str, str] = field(default_factory=dict)
    """What it is made with."""
    kept: Path | None = None
    """A folder in which a sink may keep what it needs to go on with a run that is resumed."""
    parent: str = ""
    """The sink's own name of the run that this one belongs to."""
    traces: int = 0
    """Conversations of each evaluation that it is to keep."""


@dataclass(frozen=True, slots=True)
class Model:
    """A checkpoint that is to be registered."""

    path: Path
    name: str
    """Under which."""
    alias: str
    """For the new version; empty for none."""
    facts: Mapping[str, str]
    """What it is, and where it comes from."""


class Sink(Protocol):
    """Somewhere that takes rows of numbers."""

    @property
    def identity(self) -> str:
        """Its own name of the run; empty where it has none."""
        ...

    def log(self, step: int, row: Mapping[str, float]) -> None:
        """One row; names are ``area/name``."""
        ...

    def transcripts(self, step: int, pages: Sequence[Transcript]) -> None:
        """Samples drawn after ``step`` steps."""
        ...

    def catch_up(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Take what it lacks of a run that is resumed: its rows so far, with ``step`` and ``time``."""
        ...

    def keep(self, files: Sequence[Path], model: Model | None) -> None:
        """What the run has left: files and folders, and a model that it is to be known by."""
        ...

    def close(self, *, failed: bool = False) -> None:
        """Nothing more will come; whether the run came to grief."""
        ...


def open_sink(kind: str, destination: str, run: Described) -> Sink:
    """A sink of that kind, which writes to ``destination``; empty: where it writes by itself.

    Once it is open, nothing waits for it, and a sink that fails is told of in the log and gets no more: a run neither
    ends nor stands still with it. The end waits for it a little.

    Raises:
        ConfigError: its package is not installed.
        StorageError: it cannot be opened.
    """
    try:
        opened: Callable[[str, Described], Sink] = importlib.import_module(f"fettle.tracking.sinks.{kind}").opened
        return _Guarded(kind, opened(destination, run))
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{kind} needs the package {error.name}, which is not installed: pip install 'fettle[{EXTRAS[kind]}]'"
        ) from error
    except FettleError:
        raise
    except Exception as error:
        raise StorageError(f"{kind} cannot be opened at {destination or 'its own place'}: {_words(error)}") from error


class _Guarded:
    """A sink whose faults end it, and not the run, and for which nobody waits."""

    def __init__(self, kind: str, sink: Sink) -> None:
        self._kind = kind
        self.identity = sink.identity
        self._sink: Sink | None = sink
        self._line: Line | None = Line(f"to {kind}")

    def log(self, step: int, row: Mapping[str, float]) -> None:
        """If it still takes any; one that does not is closed."""
        values = dict(row)
        self._give(lambda sink: sink.log(step, values))

    def transcripts(self, step: int, pages: Sequence[Transcript]) -> None:
        """The same."""
        self._give(lambda sink: sink.transcripts(step, pages))

    def catch_up(self, rows: Sequence[Mapping[str, float]]) -> None:
        """The same."""
        self._give(lambda sink: sink.catch_up(rows))

    def keep(self, files: Sequence[Path], model: Model | None) -> None:
        """The same."""
        self._give(lambda sink: sink.keep(files, model))

    def close(self, *, failed: bool = False) -> None:
        """If it still is open, once it has taken everything; one that has stopped taking is left."""
        line = self._line
        if line is None:
            return
        self._give(lambda _: self._closed(failed=failed))
        self._line = None
        left = line.end(PATIENCE_S)
        if left:
            logger.warning(
                "%s stands still, and did not take the last %d of what the run had for it: the run's folder has all",
                self._kind,
                left,
            )

    def _give(self, call: Callable[[Sink], None]) -> None:
        if self._line is not None:
            self._line.give(lambda: self._made(call))

    def _made(self, call: Callable[[Sink], None]) -> None:
        if self._sink is not None and not self._told(call, self._sink):
            self._closed(failed=True)

    def _closed(self, *, failed: bool) -> None:
        sink, self._sink = self._sink, None
        if sink is not None:
            self._told(lambda each: each.close(failed=failed), sink)

    def _told(self, call: Callable[[Sink], None], sink: Sink) -> bool:
        try:
            call(sink)
        except Exception as error:  # noqa: BLE001  whatever its package raises, the run's own numbers are on disk
            logger.warning("%s takes no more of the run's numbers: %s", self._kind, _words(error))
            return False
        return True


def _words(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
