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

    def protocol(*given: Any, **named: Any) -> asyncio.Protocol:
        return _Timely(*given, **named, timeout_s=timeout_s)

    return uvicorn.Server(
        uvicorn.Config(
            app,
            http=protocol,  # type: ignore[arg-type]
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=settings.trusted_proxy,
            forwarded_allow_ips="*" if settings.trusted_proxy else None,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=LAST_ANSWERS_S,
            ssl_certfile=settings.tls_cert,
            ssl_keyfile=settings.tls_key,
        )
    )


class _Timely(HttpToolsProtocol):
    """Ends a connection whose first request, up to the end of its headers, does not come in time."""

    def __init__(self, *given: Any, timeout_s: float, **named: Any) -> None:
        super().__init__(*given, **named)
        self._timeout_s = timeout_s
        self._waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait."""
        super().connection_made(transport)
        self._wait()

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._wait()

    def on_headers_complete(self) -> None:
        """Its headers are here."""
        self._end_wait()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is there any more."""
        self._end_wait()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._end_wait()
        self._waiting = self.loop.call_later(self._timeout_s, self.transport.abort)

    def _end_wait(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
