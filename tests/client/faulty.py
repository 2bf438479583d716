"""A network between a client and a service that drops, delays, doubles and cuts, as it is told to."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

Fault = Literal["none", "refuse", "lose request", "lose answer", "cut answer", "delay", "double"]
FAULTS: Sequence[Fault] = ("refuse", "lose request", "lose answer", "cut answer", "delay", "double")


@dataclass
class Network:
    """Each request meets the next fault of a fixed sequence."""

    url: str
    service: str
    """Where requests go; it may change."""
    share: float
    """Of requests that meet one."""
    random: random.Random
    met: dict[str, int] = field(default_factory=dict)

    def next_fault(self) -> Fault:
        fault = self.random.choice(FAULTS) if self.random.random() < self.share else "none"
        self.met[fault] = self.met.get(fault, 0) + 1
        return fault


@asynccontextmanager
async def faulty_network(service: str, *, share: float, seed: int) -> AsyncIterator[Network]:
    """A proxy on a port of its own."""
    network, tasks = Network("", service, share, random.Random(seed)), set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while await _passed_on(reader, writer, network.next_fault()):
                pass
        writer.close()

    async def _passed_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, fault: Fault) -> bool:
        """Whether the connection goes on after one request."""
        request = await _message(reader)
        if fault in ("refuse", "lose request"):
            return False
        if fault == "delay":
            await asyncio.sleep(0.05)
        if fault == "double":
            await _answer(request)
        answer = await _answer(request)
        if fault == "lose answer":
            return False
        writer.write(answer[: len(answer) // 2] if fault == "cut answer" else answer)
        await writer.drain()
        return fault != "cut answer"

    async def _answer(request: bytes) -> bytes:
        target = urlsplit(network.service)
        reader, writer = await asyncio.open_connection(target.hostname, target.port)
        try:
            writer.write(request)
            return await _message(reader)
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    network.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield network
    finally:
        server.close()
        for task in tasks:
            task.cancel()


async def _message(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    lengths = [int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return head + await reader.readexactly(sum(lengths))
