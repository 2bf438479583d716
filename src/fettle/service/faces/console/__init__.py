"""The console: what a service does, for people, in pages that need no build step and no internet."""

from fettle.service.faces.console.face import routes

__all__ = ["routes"]
