"""The native face: runs, operations, samplers and checkpoints under ``/v1``, as JSON or as frames."""

from fettle.service.faces.native.face import routes

__all__ = ["routes"]
