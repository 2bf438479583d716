"""The socket, and connections that must say something in time."""

import asyncio
import errno
import socket
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from fettle.config import ServiceConfig
from fettle.errors import ConfigError, StateError

BACKLOG = 2048
KEEP_ALIVE_S = 75
LARGEST_HEAD = 64 * 1024
"""Bytes of a request before its body."""
LAST_ANSWERS_S = 10
"""For answers under way when the server ends."""


def bound(host: str, port: int) -> socket.socket:
    """A socket at an address; port 0 is any that is free.

    Raises:
        ConfigError: there is no such address on this machine.
        StateError: somebody else listens there.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise ConfigError(f"host is {host}, which is no address of this machine: use 127.0.0.1 or 0.0.0.0") from error
    listening = socket.socket(family, kind, protocol)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise StateError(
                f"port {port} of {host} is in use by another program: choose another with --port"
            ) from error
        raise ConfigError(f"port {port} of {host} cannot be listened on: {error.strerror}") from error
    return listening


def server_of(app: FastAPI, settings: ServiceConfig) -> uvicorn.Server:
    """What answers connections."""
    timeout_s = settings.request_timeout_s

    most = settings.max_connections

    def protocol(*given: Any, **named: Any) -> asyncio.Protocol:
        return _Timely(*given, **named, timeout_s=timeout_s, most=most)

    return uvicorn.Server(
        uvicorn.Config(
            app,
            http=protocol,  # type: ignore[arg-type]
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=bool(settings.trusted_proxy),
            forwarded_allow_ips=list(settings.trusted_proxy),
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=LAST_ANSWERS_S,
            ssl_certfile=settings.tls_cert,
            ssl_keyfile=settings.tls_key,
        )
    )


class Joining:
    """A transport that sends two pieces as one: the head of an answer goes with its body, a turn later at most."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send what is held with this, or hold this for what comes next."""
        if self._held:
            held, self._held = self._held, b""
            self._transport.writelines((held, data))
        elif data:
            self._held = data
            self._loop.call_soon(self._release)

    def get_write_buffer_size(self) -> int:
        """Bytes that the client has not taken."""
        return self._transport.get_write_buffer_size() + len(self._held)

    def close(self) -> None:
        """Send what is held, and end the connection."""
        self._release()
        self._transport.close()

    def _release(self) -> None:
        if self._held:
            self.write(b"")


class _Timely(HttpToolsProtocol):
    """Ends a connection that does not send the whole head of a request in time, or too much of one, or does not read.

    What is written for a client that takes none of it is held here; it has as long to take it as it has for a head.
    """

    def __init__(self, *given: Any, timeout_s: float, most: int, **named: Any) -> None:
        super().__init__(*given, **named)
        self._timeout_s = timeout_s
        self._most = most
        self._waiting: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self._in_head = True
        self._heads = 0
        self._read = 0
        """Bytes of pieces that end no head, since one ended."""
        self._told = 0
        """Bytes of its fields."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait."""
        super().connection_made(Joining(transport, self.loop))  # type: ignore[arg-type]
        if len(self.connections) > self._most:
            self._refuse("503 Service Unavailable", f"there are {self._most} connections: try again in a moment")
        else:
            self._wait()

    def data_received(self, data: bytes) -> None:
        """Read on."""
        was_in_head, heads = self._in_head, self._heads
        super().data_received(data)
        if self._in_head and not self.transport.is_closing():
            self._read += len(data) if was_in_head and heads == self._heads else 0
            if self._read > LARGEST_HEAD:
                self._refuse_head()
            elif self._waiting is None and (self.cycle is None or self.cycle.response_complete):
                self._wait()

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._told = 0
        self._wait()

    def on_url(self, url: bytes) -> None:
        """Some of its address."""
        self._tell(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One of its headers."""
        self._tell(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Its headers are here."""
        self._end_wait()
        self._in_head, self._read, self._heads = False, 0, self._heads + 1
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Its body is here."""
        super().on_message_complete()
        self._in_head = True

    def pause_writing(self) -> None:
        """Its client is behind."""
        super().pause_writing()
        self._watch_reading()

    def resume_writing(self) -> None:
        """It has caught up."""
        super().resume_writing()
        self._end_watch()

    def on_response_complete(self) -> None:
        """An answer is written; some of it may be here still."""
        super().on_response_complete()
        if self.transport.get_write_buffer_size() and self._unread is None:
            self._watch_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is there any more."""
        self._end_wait()
        self._end_watch()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """What cannot be read is refused."""
        if self._told > LARGEST_HEAD:
            self._refuse_head()
        else:
            super().send_400_response(msg)

    def _tell(self, nbytes: int) -> None:
        self._told += nbytes
        if self._told > LARGEST_HEAD:
            raise ValueError("the head is too large")  # which ends the parsing, and comes back as send_400_response

    def _refuse_head(self) -> None:
        self._refuse(
            "431 Request Header Fields Too Large", f"the head has more than {LARGEST_HEAD >> 10} KiB: send less"
        )

    def _refuse(self, status: str, sentence: str) -> None:
        self._end_wait()
        head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n"
        self.transport.write(f"{head}Content-Length: {len(sentence)}\r\n\r\n{sentence}".encode())
        self._watch_reading()
        self.transport.close()

    def _wait(self) -> None:
        self._end_wait()
        self._waiting = self.loop.call_later(self._timeout_s, self.transport.abort)

    def _watch_reading(self) -> None:
        self._end_watch()
        self._unread = self.loop.call_later(self._timeout_s, self._end_if_unread)

    def _end_if_unread(self) -> None:
        self._unread = None
        if self.transport.get_write_buffer_size():
            self.transport.abort()

    def _end_watch(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _end_wait(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
