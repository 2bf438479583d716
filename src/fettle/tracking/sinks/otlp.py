"""OTLP: the newest numbers as gauges, and conversations as spans, for a collector of OpenTelemetry."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as OverGRPC
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as OverHTTP
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricExporter, MetricExportResult
from opentelemetry.sdk.resources import Resource
from opentelemetry.trace import Tracer, set_span_in_context

from fettle.tracking.base import Transcript
from fettle.tracking.otel import EXPORT_TIMEOUT_S, end, spans_to
from fettle.tracking.sinks.base import Described, Model, Sink

ENDPOINT = "http://127.0.0.1:4318"
GRPC = "grpc:"
"""Before the address of a collector that speaks gRPC."""


def opened(destination: str, run: Described) -> Sink:
    """A collector at ``destination``; with ``grpc:`` before it, over gRPC."""
    grpc, endpoint = destination.startswith(GRPC), destination.removeprefix(GRPC) or ENDPOINT
    facts = {f"fettle.{name}": value for name, value in run.facts.items()}
    attributes = {"fettle.run": run.name, "fettle.project": run.project, **facts}
    exporter: MetricExporter
    if grpc:
        exporter = OverGRPC(endpoint=endpoint, timeout=EXPORT_TIMEOUT_S, insecure=endpoint.startswith("http:"))
    else:
        exporter = OverHTTP(endpoint=f"{endpoint.rstrip('/')}/v1/metrics", timeout=EXPORT_TIMEOUT_S)
    resource = Resource.create({"service.name": "fettle", **attributes})
    traces = spans_to(endpoint if grpc else f"{endpoint.rstrip('/')}/v1/traces", grpc=grpc, attributes=attributes)
    return OTLP(exporter, resource, traces.get_tracer("fettle"), lambda: end(traces))


class OTLP:
    """Satisfies ``Sink``."""

    identity = ""

    def __init__(
        self, exporter: MetricExporter, resource: Resource, tracer: Tracer, end_spans: Callable[[], None]
    ) -> None:
        self._exporter = exporter
        # Numbers are sent as they come, and not by a clock, which would tell nobody of a failure.
        self._reader = InMemoryMetricReader()
        self._meter = MeterProvider([self._reader], resource, shutdown_on_exit=False).get_meter("fettle")
        self._tracer = tracer
        self._end_spans = end_spans
        self._gauges: dict[str, Callable[[float], None]] = {}

    def log(self, step: int, row: Mapping[str, float]) -> None:
        """The newest numbers, sent at once."""
        for name, value in {"step": float(step), **row}.items():
            if name not in self._gauges:
                self._gauges[name] = self._meter.create_gauge(f"fettle.{_named(name)}").set
            self._gauges[name](float(value))
        numbers = self._reader.get_metrics_data()
        if numbers is not None and self._exporter.export(numbers) is not MetricExportResult.SUCCESS:
            raise ConnectionError("the collector does not take what it is sent")

    def transcripts(self, step: int, pages: Sequence[Transcript]) -> None:
        """A span for each conversation, and in it one for each message."""
        for page in pages:
            root = self._tracer.start_span("rollout", attributes={"fettle.step": step, "fettle.task": page.title})
            root.set_attribute("fettle.reward", page.reward)
            for message in page.messages:
                said = {"gen_ai.role": message.role, "gen_ai.content": message.content}
                self._tracer.start_span(message.role, set_span_in_context(root), attributes=said).end()
            root.end()

    def catch_up(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Nothing: only the newest numbers are for it."""

    def keep(self, files: Sequence[Path], model: Model | None) -> None:
        """Nothing: files are not for a collector."""

    def close(self, *, failed: bool = False) -> None:
        """Send what is left."""
        self._end_spans()
        self._exporter.shutdown()


def _named(name: str) -> str:
    """As OpenTelemetry takes it."""
    return re.sub(r"[^a-zA-Z0-9_.\-/]", "_", name).replace("/", ".")[:200]
