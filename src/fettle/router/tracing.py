"""Spans of a run over OTLP: the run, and in it each rollout and each update. Needs the extra ``otel``."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry.trace import Span, StatusCode, Tracer

from fettle.config.router import Experiment, TracingExport
from fettle.router.training import Note, Row
from fettle.tracking.otel import end, spans_to


@contextmanager
def traced(settings: TracingExport, experiment: Experiment) -> Iterator["Traces"]:
    """Spans that are sent until the block ends; what is left is sent then."""
    attributes = {
        "fettle.experiment": experiment.name,
        "fettle.description": experiment.description,
        "fettle.tags": tuple(experiment.tags),
        "fettle.simulated": "true",
    }
    provider = spans_to(settings.endpoint, grpc=settings.exporter == "otlp", attributes=attributes)
    tracer = provider.get_tracer("fettle.router")
    try:
        with tracer.start_as_current_span("train") as span:
            yield Traces(tracer, span)
    finally:
        end(provider)


class Traces:
    """Satisfies ``Spans``."""

    def __init__(self, tracer: Tracer, whole: Span) -> None:
        self._tracer = tracer
        self._whole = whole

    def stopped(self, reason: str) -> None:
        """Say of the run that it failed, and why."""
        self._whole.set_status(StatusCode.ERROR, reason)

    @contextmanager
    def __call__(self, name: str, update: int) -> Iterator[Note]:
        """A span within the run's."""
        with self._tracer.start_as_current_span(name, attributes={"fettle.update": update}) as span:

            def note(numbers: Row) -> None:
                span.set_attributes(_named(numbers))

            yield note


def _named(numbers: Mapping[str, float]) -> dict[str, float]:
    return {f"fettle.{name}": value for name, value in numbers.items()}
