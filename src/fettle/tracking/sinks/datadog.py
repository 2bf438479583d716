"""Datadog: the newest numbers as gauges for its agent, by DogStatsD: datagrams of lines that nobody answers."""

import math
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fettle.errors import ConfigError
from fettle.tracking.base import Transcript
from fettle.tracking.sinks.base import Described, Model, Sink

ADDRESS = "127.0.0.1:8125"
"""Where an agent listens by itself."""
UNIX = "unix://"
"""Before the path of an agent's socket."""
LONGEST_UDP, LONGEST_UNIX = 1432, 8192
"""Bytes of a datagram, as the agent's makers recommend."""
LONGEST_TAG = 200
"""Characters."""


def opened(destination: str, run: Described) -> Sink:
    """An agent at ``host:port``, or at ``unix://`` and the path of its socket."""
    address = destination or ADDRESS
    tags = {"run": run.name, "project": run.project, "simulated": str(run.simulated).lower()}
    named = [f"{name}:{_tag(value)}" for name, value in tags.items() if value]
    behind = ",".join([*named, *map(_tag, run.tags)])
    if address.startswith(UNIX):
        there = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        path = address.removeprefix(UNIX)
        there.connect(path)  # so that one that is not there is told before the run begins
        return Datadog(there, path, behind, LONGEST_UNIX)
    host, _, port = address.rpartition(":")
    if not port.isdecimal() or not host:
        raise ConfigError(f"{address!r} is no host and port of an agent of Datadog: write it as {ADDRESS}")
    [(family, kind, protocol, _, place), *_] = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_DGRAM)
    return Datadog(socket.socket(family, kind, protocol), place, behind, LONGEST_UDP)


class Datadog:
    """Satisfies ``Sink``. A number that is none, as NaN, is left out: the protocol has no word for it."""

    identity = ""

    def __init__(self, there: socket.socket, place: Any, tags: str, longest: int) -> None:
        self._there = there
        self._place = place
        self._tags = tags
        self._longest = longest

    def log(self, step: int, row: Mapping[str, float]) -> None:
        """The newest numbers, with the step that they are of."""
        numbers = {"step": float(step), **row}
        lines = (f"{_named(name)}:{value!r}|g|#{self._tags}".encode() for name, value in _finite(numbers))
        for datagram in _together(lines, self._longest):
            self._there.sendto(datagram, self._place)

    def transcripts(self, step: int, pages: Sequence[Transcript]) -> None:
        """Nothing: it takes numbers only."""

    def catch_up(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Nothing: only the newest numbers are for it."""

    def keep(self, files: Sequence[Path], model: Model | None) -> None:
        """Nothing: it takes numbers only."""

    def close(self, *, failed: bool = False) -> None:
        """Close the socket."""
        self._there.close()


def _finite(numbers: Mapping[str, float]) -> Iterator[tuple[str, float]]:
    return ((name, float(value)) for name, value in numbers.items() if math.isfinite(value))


def _together(lines: Iterator[bytes], longest: int) -> Iterator[bytes]:
    """As many lines in one datagram as fit."""
    some: list[bytes] = []
    for line in lines:
        if some and sum(map(len, some)) + len(some) + len(line) > longest:
            yield b"\n".join(some)
            some = []
        some.append(line)
    if some:
        yield b"\n".join(some)


def _named(name: str) -> str:
    """As Datadog takes it: words with dots between them."""
    return "fettle." + re.sub(r"[^a-zA-Z0-9_.]", "_", name.replace("/", "."))[:190]


def _tag(value: str) -> str:
    """Without what would end it."""
    return re.sub(r"[^\w:./\-]", "_", value)[:LONGEST_TAG]
