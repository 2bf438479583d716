"""What a sink of numbers is, which there are, and how one is opened."""

import importlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from fettle.errors import ConfigError, FettleError, StorageError

logger = logging.getLogger(__name__)

EXTRAS: Mapping[str, str] = MappingProxyType(
    {"wandb": "wandb", "mlflow": "mlflow", "tensorboard": "tensorboard", "prometheus": "server"}
)
"""The sinks by name, and the extra of this package that brings what each needs."""


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


class Sink(Protocol):
    """Somewhere that takes rows of numbers."""

    def log(self, step: int, row: Mapping[str, float]) -> None:
        """One row; names are ``area/name``."""
        ...

    def close(self, *, failed: bool) -> None:
        """Nothing more will come; whether the run came to grief."""
        ...


def open_sink(kind: str, destination: str, run: Described) -> Sink:
    """A sink of that kind, which writes to ``destination``; empty: where it writes by itself.

    Once it is open, a sink that fails is told of in the log, and no more is sent: a run does not end with it.

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
    """A sink whose faults end it, and not the run."""

    def __init__(self, kind: str, sink: Sink) -> None:
        self._kind = kind
        self._sink: Sink | None = sink

    def log(self, step: int, row: Mapping[str, float]) -> None:
        """If it still takes any; one that does not is closed."""
        if self._sink is not None and not self._told(lambda sink: sink.log(step, row), self._sink):
            self.close(failed=True)

    def close(self, *, failed: bool) -> None:
        """If it still is open."""
        sink, self._sink = self._sink, None
        if sink is not None:
            self._told(lambda sink: sink.close(failed=failed), sink)

    def _told(self, call: Callable[[Sink], None], sink: Sink) -> bool:
        try:
            call(sink)
        except Exception as error:  # noqa: BLE001  whatever its package raises, the run's own numbers are on disk
            logger.warning("%s takes no more of the run's numbers: %s", self._kind, _words(error))
            return False
        return True


def _words(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
