"""Numbers sent elsewhere: MLflow, W&B, TensorBoard, Prometheus, OTLP. Each needs an extra, imported when asked for."""

from fettle.tracking.sinks.base import EXTRAS, Described, Model, Sink, open_sink

__all__ = ["EXTRAS", "Described", "Model", "Sink", "open_sink"]
