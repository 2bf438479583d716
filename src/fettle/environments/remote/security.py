"""Who may call: tokens, certificates, and callers of another protocol."""

import hmac
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import grpc

from fettle.config import EnvironmentServerConfig, Remote
from fettle.config.remote import tokens
from fettle.environments.remote import wire
from fettle.errors import ConfigError

OPEN = "/grpc.health.v1."
"""Calls that need no token: they say whether the server serves, and nothing else."""
BEARER = b"Bearer "

Metadata = Iterable[tuple[str, str | bytes]]


class Door(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # grpc has no types
    """Lets in who brings one of the tokens and speaks this protocol."""

    def __init__(self, good: Sequence[str]) -> None:
        """Without any token everybody is let in."""
        self._good = [token.encode() for token in good]

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]], details: grpc.HandlerCallDetails
    ) -> Any:
        """The call's own handler, or one that says why it is not let in."""
        handler = await continuation(details)
        if handler is None or details.method.startswith(OPEN):
            return handler
        given = dict(details.invocation_metadata)
        protocol = given.get(wire.PROTOCOL_KEY, wire.PROTOCOL)
        if not self._known(given.get("authorization", "")):
            return _closed(handler, grpc.StatusCode.UNAUTHENTICATED, "give one of this server's tokens as a bearer")
        if protocol != wire.PROTOCOL:
            why = f"this server speaks protocol {wire.PROTOCOL}, and not {str(protocol)[:20]}: install the same version"
            return _closed(handler, grpc.StatusCode.FAILED_PRECONDITION, why)
        return handler

    def _known(self, given: str | bytes) -> bool:
        if not self._good:
            return True
        text = given if isinstance(given, bytes) else given.encode()
        asked = text.removeprefix(BEARER) if text.startswith(BEARER) else b""
        # Every token is compared, each in constant time: how long it takes says nothing of any of them.
        return bool(sum(hmac.compare_digest(asked, token) for token in self._good))


def _closed(handler: Any, code: grpc.StatusCode, why: str) -> Any:
    """A handler of the same shape that ends every call with ``why``."""

    async def ended(_: Any, context: grpc.aio.ServicerContext) -> None:
        await context.abort(code, why)

    if handler.request_streaming:
        shape = grpc.stream_stream_rpc_method_handler if handler.response_streaming else None
        shape = shape or grpc.stream_unary_rpc_method_handler
    else:
        shape = grpc.unary_stream_rpc_method_handler if handler.response_streaming else None
        shape = shape or grpc.unary_unary_rpc_method_handler
    return shape(ended, handler.request_deserializer, handler.response_serializer)


def server_credentials(settings: EnvironmentServerConfig) -> grpc.ServerCredentials | None:
    """The server's certificates, and whose it takes; None in the clear."""
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    authorities = _read(settings.client_authorities) if settings.client_authorities is not None else None
    return grpc.ssl_server_credentials(
        [(_read(settings.tls_key), _read(settings.tls_cert))],
        root_certificates=authorities,
        require_client_auth=authorities is not None,
    )


def channel_credentials(settings: Remote) -> grpc.ChannelCredentials | None:
    """The client's side; None in the clear."""
    tls = settings.tls
    if tls is None:
        return None
    return grpc.ssl_channel_credentials(
        root_certificates=_read(tls.authorities) if tls.authorities is not None else None,
        private_key=_read(tls.key) if tls.key is not None else None,
        certificate_chain=_read(tls.certificate) if tls.certificate is not None else None,
    )


def credentials(settings: Remote) -> Metadata:
    """What every call brings."""
    found = tokens(variable=settings.token_variable, file=settings.token_file)
    return ((wire.PROTOCOL_KEY, wire.PROTOCOL), *(("authorization", BEARER.decode() + token) for token in found[:1]))


def _read(path: str) -> bytes:
    try:
        return Path(path).expanduser().read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}, a certificate or its key, cannot be read: {error.strerror}") from error
