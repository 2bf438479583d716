"""How answers leave: the head with the body, and never later than it could."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from fastapi import FastAPI, Response
from starlette.responses import StreamingResponse

from fettle.config import ServedModel, ServiceConfig
from fettle.service.connections import Joining, bound, server_of
from tests.service.served import PATIENCE_S


class Network:
    """Remembers what is sent."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.closed = False

    def writelines(self, pieces: tuple[bytes, ...]) -> None:
        self.sent.append(b"".join(pieces))

    def get_write_buffer_size(self) -> int:
        return 0

    def close(self) -> None:
        self.closed = True


async def test_two_pieces_leave_as_one():
    network = Network()
    joining = Joining(network, asyncio.get_running_loop())  # type: ignore[arg-type]
    joining.write(b"head")
    assert joining.get_write_buffer_size() == 4
    joining.write(b"body")
    await asyncio.sleep(0)
    assert network.sent == [b"headbody"]


async def test_a_piece_that_nothing_follows_leaves_by_itself():
    network = Network()
    joining = Joining(network, asyncio.get_running_loop())  # type: ignore[arg-type]
    joining.write(b"head")
    await asyncio.sleep(0)
    assert network.sent == [b"head"]
    joining.write(b"more")
    joining.close()
    assert network.sent == [b"head", b"more"]
    assert network.closed


@asynccontextmanager
async def answering(app: FastAPI, tiny_model: str) -> AsyncIterator[int]:
    """The port of a server of the application's."""
    server = server_of(app, ServiceConfig(models=(ServedModel(name="tiny", path=tiny_model),)))
    listening = bound("127.0.0.1", 0)
    serving = asyncio.create_task(server.serve([listening]))
    try:
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        await serving


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_the_head_of_a_stream_is_there_before_its_body(tiny_model, method):
    app, heard = FastAPI(), asyncio.Event()

    @app.api_route("/", methods=["GET", "HEAD"])
    async def streamed() -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            await heard.wait()
            yield b"body"

        return StreamingResponse(pieces())

    async with answering(app, tiny_model) as port, asyncio.timeout(PATIENCE_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"{method} / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        heard.set()
        body = await reader.read()
        writer.close()
    assert head.startswith(b"HTTP/1.1 200")
    assert body == (b"4\r\nbody\r\n0\r\n\r\n" if method == "GET" else b"")
