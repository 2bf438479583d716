"""Numbers sent elsewhere: MLflow, W&B, TensorBoard, Prometheus, OTLP, Datadog, events; most need an extra."""

from fettle.tracking.sinks.base import EXTRAS, Described, Model, Sink, open_sink

__all__ = ["EXTRAS", "Described", "Model", "Sink", "open_sink"]
