"""The command line: names to objects, and one file a group of verbs."""

from fettle.cli.app import app, main

__all__ = ["app", "main"]
