"""What is told of a run besides its artifacts: a log, curves, spans. All of it is off until it is switched on."""

import importlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from fettle.config.router import RouterConfig
from fettle.errors import ConfigError
from fettle.router.logs import Write, logged_to
from fettle.router.training import Row, Spans, untraced
from fettle.tracking.sinks import Described, Sink, open_sink

AREA = "router"
"""Of the names of numbers that are sent elsewhere."""


@dataclass(slots=True)
class Observed:
    """Where a run is told of."""

    write: Write
    spans: Spans
    sink: Sink | None
    told_of_end: Callable[[str], None] = lambda reason: None
    """Told why a breaker ended the run."""
    failed: bool = False

    def row(self, row: Row) -> None:
        """An update."""
        self.write("info", "update", **row)
        if self.sink is not None:
            self.sink.log(int(row["update"]), {f"{AREA}/{name}": value for name, value in row.items()})

    def stopped(self, reason: str) -> None:
        """A breaker has ended it."""
        self.failed = True
        self.write("error", "stopped", reason=reason)
        self.told_of_end(reason)


@contextmanager
def observed(config: RouterConfig) -> Iterator[Observed]:
    """What the settings switch on, open while the block runs.

    Raises:
        ConfigError: a package is not installed.
        StorageError: a file or a sink cannot be opened.
    """
    told = config.rllm.observability
    with ExitStack() as open_now:
        log = told.logging if told.enabled and told.logging.enabled else None
        found = Observed(open_now.enter_context(logged_to(log)), untraced, None)
        if told.enabled and told.metrics.enabled:
            found.sink = open_sink(told.metrics.backend, told.metrics.destination, described(config))
            open_now.push(lambda kind, *_: _closed(found, broken=kind is not None))
        if told.enabled and told.tracing.enabled:
            traces = open_now.enter_context(_traced(config))
            found.spans, found.told_of_end = traces, traces.stopped
        yield found


def described(config: RouterConfig) -> Described:
    """What a sink is told of a run."""
    experiment, metrics = config.rllm.experiment, config.rllm.observability.metrics
    return Described(
        name=experiment.name,
        description=experiment.description,
        tags=tuple(dict.fromkeys((*experiment.tags, *metrics.tags))),
        project=metrics.project,
        entity=metrics.entity,
        settings=_flat(config.rllm.model_dump(mode="json"), ("rllm",)),
        simulated=True,
    )


def _traced(config: RouterConfig) -> AbstractContextManager[Any]:
    try:
        # Only when it is asked for: it needs an extra.
        tracing: Any = importlib.import_module("fettle.router.tracing")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("fettle"):
            raise
        raise ConfigError(
            f"rllm.observability.tracing needs the package {error.name}, which is not installed: "
            "pip install 'fettle[otel]'"
        ) from error
    made: AbstractContextManager[Any] = tracing.traced(config.rllm.observability.tracing, config.rllm.experiment)
    return made


def _closed(found: Observed, *, broken: bool) -> None:
    if found.sink is not None:
        found.sink.close(failed=broken or found.failed)


def _flat(tree: Any, place: tuple[str, ...]) -> dict[str, object]:
    if not isinstance(tree, dict):
        return {".".join(place): tree}
    return {name: value for key, inner in tree.items() for name, value in _flat(inner, (*place, key)).items()}
