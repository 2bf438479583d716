"""A server of a few lines, which answers as it is told to: rightly, late, halfway or not at all."""

import asyncio
import json
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from fettle.frames import MEDIA_TYPE, packed, unpacked

CUT, DROPPED = "cut", "dropped"
"""An answer of which only half is sent, and one that is not sent at all."""


@dataclass(frozen=True)
class Asked:
    """One request as it arrived."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    tree: Any
    connection: int
    nbytes: int
    """Of the body as it came."""


@dataclass
class Raw:
    """What was asked, and what is to be answered: ``(status, tree)``, with headers, or one of the faults above."""

    url: str
    asked: list[Asked] = field(default_factory=list)
    says: Callable[[Asked], Any] = lambda asked: (200, {})


@asynccontextmanager
async def raw_server() -> AsyncIterator[Raw]:
    raw, connections, tasks = Raw(""), iter(range(10**6)), set()

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        number = next(connections)
        try:
            while (asked := await _asked(reader, number)) is not None:
                raw.asked.append(asked)
                said = raw.says(asked)
                said = await said if asyncio.iscoroutine(said) else said
                if said == DROPPED or not await _answered(writer, said):
                    return
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            return
        finally:
            writer.close()

    server = await asyncio.start_server(served, "127.0.0.1", 0)
    raw.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield raw
    finally:
        server.close()
        for task in tasks:
            task.cancel()


async def _asked(reader: asyncio.StreamReader, connection: int) -> Asked | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.strip().split("\r\n")
    method, target, _ = first.split()
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    read = unpacked if headers.get("content-type") == MEDIA_TYPE else json.loads
    opened = zlib.decompress(body) if headers.get("content-encoding") == "deflate" else body
    tree = read(opened) if body else None
    parts = urlsplit(target)
    return Asked(method, parts.path, parse_qs(parts.query), headers, tree, connection, len(body))


async def _answered(writer: asyncio.StreamWriter, said: Any) -> bool:
    """Whether the connection can be used again."""
    whole = said[0] != CUT
    status, tree, *more = said if whole else said[1:]
    body = tree if isinstance(tree, bytes) else packed(tree)
    headers = {"Content-Type": MEDIA_TYPE, **(more[0] if more else {}), "Content-Length": str(len(body))}
    head = f"HTTP/1.1 {status} X\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "\r\n"
    writer.write(head.encode() + (body if whole else body[: len(body) // 2]))
    await writer.drain()
    return whole
