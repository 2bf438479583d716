"""Spans over OTLP: where they go, and how the last of them are sent. Needs the extra ``otel``."""

from collections.abc import Mapping, Sequence

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as OverGRPC
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as OverHTTP
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

EXPORT_TIMEOUT_S = 2
LAST_SPANS_MS = 3000


def spans_to(
    endpoint: str, *, grpc: bool, attributes: Mapping[str, str | Sequence[str]] | None = None
) -> TracerProvider:
    """Makes tracers; ``attributes`` are told of all that they trace."""
    exporter: SpanExporter
    if grpc:
        exporter = OverGRPC(endpoint=endpoint, timeout=EXPORT_TIMEOUT_S)
    else:
        exporter = OverHTTP(endpoint=endpoint, timeout=EXPORT_TIMEOUT_S)
    resource = Resource.create({"service.name": "fettle", **(attributes or {})})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def end(provider: TracerProvider) -> None:
    """Send what is left."""
    provider.force_flush(LAST_SPANS_MS)
    provider.shutdown()
