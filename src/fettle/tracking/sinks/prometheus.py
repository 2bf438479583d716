"""Prometheus: a page of the newest numbers, at an address of this machine, for as long as the run goes on."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Thread
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Gauge, start_http_server

from fettle.errors import ConfigError
from fettle.tracking.base import Transcript
from fettle.tracking.sinks.base import Described, Model, Sink

ADDRESS = "127.0.0.1:9464"
"""Where the page is by itself."""


def opened(destination: str, run: Described) -> Sink:
    """A page at ``destination``, which is a host and a port."""
    host, _, port = (destination or ADDRESS).rpartition(":")
    if not port.isdecimal() or not host:
        raise ConfigError(f"{destination!r} is no host and port for Prometheus to ask: write it as {ADDRESS}")
    registry = CollectorRegistry()
    about = Gauge("fettle_run_info", "What the run is.", ABOUT, registry=registry)
    simulated = str(run.simulated).lower()
    about.labels(run.name, run.description, ",".join(run.tags), run.project, run.entity, simulated).set(1)
    server, thread = start_http_server(int(port), host, registry)
    return Prometheus(registry, server, thread, run.name)


ABOUT = ("name", "description", "tags", "project", "entity", "simulated")


class Prometheus:
    """Satisfies ``Sink``. A number is a gauge, named as it is here but for what Prometheus does not take."""

    identity = ""

    def __init__(self, registry: CollectorRegistry, server: WSGIServer, thread: Thread, run: str) -> None:
        self._registry = registry
        self._server = server
        self._thread = thread
        self._run = run
        self._gauges: dict[str, Gauge] = {}

    def log(self, step: int, row: Mapping[str, float]) -> None:
        """The newest numbers stand in the place of those before."""
        for name, value in {"step": float(step), **row}.items():
            if name not in self._gauges:
                spelt = "fettle_" + re.sub(r"[^a-zA-Z0-9_]", "_", name)
                self._gauges[name] = Gauge(spelt, f"The run's newest {name}.", ("name",), registry=self._registry)
            self._gauges[name].labels(self._run).set(value)

    def transcripts(self, step: int, pages: Sequence[Transcript]) -> None:
        """Nothing: it takes numbers only."""

    def catch_up(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Nothing: only the newest numbers are for it."""

    def keep(self, files: Sequence[Path], model: Model | None) -> None:
        """Nothing: it takes numbers only."""

    def close(self, *, failed: bool = False) -> None:
        """The page goes."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
