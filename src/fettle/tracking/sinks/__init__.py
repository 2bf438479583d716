"""Numbers sent elsewhere: MLflow, W&B, TensorBoard, Prometheus, OTLP, Datadog; most need an extra when asked for."""

from fettle.tracking.sinks.base import EXTRAS, Described, Model, Sink, open_sink

__all__ = ["EXTRAS", "Described", "Model", "Sink", "open_sink"]
