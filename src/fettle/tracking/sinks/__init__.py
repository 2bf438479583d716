"""Numbers sent elsewhere: W&B, MLflow, TensorBoard, Prometheus. Each needs an extra, and is imported when asked for."""

from fettle.tracking.sinks.base import EXTRAS, Described, Sink, open_sink

__all__ = ["EXTRAS", "Described", "Sink", "open_sink"]
