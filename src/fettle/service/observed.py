"""Around every request: its id, how long it took, and the headers that every answer has."""

import logging
import re
import secrets
import time
from typing import Protocol

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fettle.errors import BusyError
from fettle.service.logs import REQUEST, REQUESTS
from fettle.service.metrics import Metrics
from fettle.service.wire import error_response, internal_error

ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
"""A caller's own id of a request."""

ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}
"""Headers of every answer that does not set them itself."""
_ALWAYS = [(name.lower().encode(), value.encode()) for name, value in ALWAYS.items()]

STOPPING = BusyError("the service is stopping: send this again in a moment", retry_after=5.0)


class Standing(Protocol):
    """What is watched."""

    metrics: Metrics
    stopping: bool


class Observed:
    """The outermost layer. Whatever nobody foresaw is answered here, and goes on into the log."""

    def __init__(self, app: ASGIApp, *, service: Standing) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        id = given if ID.fullmatch(given) else secrets.token_hex(8)
        REQUEST.set(id)  # for as long as the request's own task lasts
        answer = _Answer(send, id)
        started = time.perf_counter()
        metrics = self._service.metrics
        metrics.under_way.inc()
        try:
            await self._answered(scope, receive, answer)
        finally:
            metrics.under_way.dec()
            _note(scope, answer.status, time.perf_counter() - started, metrics)

    async def _answered(self, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        if self._service.stopping and scope["method"] not in ("GET", "HEAD", "DELETE"):
            await error_response(STOPPING, 503)(scope, receive, answer.send)
            return
        try:
            await self._app(scope, receive, answer.send)
        except Exception:
            if not answer.status:
                await internal_error()(scope, receive, answer.send)
            raise  # into the server's log, which says where it was raised


class _Answer:
    """An answer on its way out."""

    def __init__(self, send: Send, id: str) -> None:
        self._send = send
        self._id = id
        self.status = 0

    async def send(self, message: Message) -> None:
        """Some of it."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            own = message["headers"] = list(message.get("headers", ()))
            said = {name.lower() for name, _ in own}
            own.append((b"x-request-id", self._id.encode()))
            own.extend(header for header in _ALWAYS if header[0] not in said)
        await self._send(message)


def _note(scope: Scope, status: int, seconds: float, metrics: Metrics) -> None:
    route = _route(scope)
    metrics.requests.labels(scope["method"], route, str(status)).observe(seconds)
    if not REQUESTS.isEnabledFor(logging.INFO):
        return
    caller = scope.get("state", {}).get("caller")
    fields = {
        "method": scope["method"],
        "route": route,
        "status": status,
        "milliseconds": round(1000 * seconds, 2),
        "tenant": getattr(caller, "tenant", ""),
        "key": getattr(caller, "key", ""),
        "address": (scope.get("client") or ("",))[0],
    }
    REQUESTS.info("answered", extra={"fields": fields})


def _route(scope: Scope) -> str:
    """The route's own path, in which nothing stands that a caller said."""
    return str(getattr(scope.get("route"), "path", "")) or "unmatched"
