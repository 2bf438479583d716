"""The door: who a request comes from, or why it may not come in."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal, Protocol
from urllib.parse import urlsplit

from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fettle.config.service import is_loopback
from fettle.errors import AuthenticationError, FettleError, ForbiddenError, StorageError
from fettle.service.audit import Audit
from fettle.service.callers import ANYBODY, Caller
from fettle.service.keys import Keyring
from fettle.service.rates import Rates, class_of
from fettle.service.wire import Refused, error_response

logger = logging.getLogger(__name__)

WITHOUT_BODY = ("GET", "HEAD")
SAME_SITE = ("same-origin", "none")
"""What browsers say of where a request of our own pages, or of nobody's, comes from."""


@dataclass(frozen=True)
class Doors:
    """Where every request comes in."""

    keys: Keyring
    audit: Audit
    rates: Rates
    auth: Literal["keys", "none"]

    async def caller_of(self, request: Request) -> Caller:
        """Who a request comes from, which the request remembers; it is counted once against what the key may ask for.

        Raises:
            AuthenticationError: it brings no key, or one that is not good.
            BusyError: the key has asked too often.
        """
        known = getattr(request.state, "caller", None)
        if isinstance(known, Caller):
            return known
        address = request.client.host if request.client else ""
        caller = await self.caller_with(presented(request), address, class_of(request.method, request.scope["path"]))
        request.state.caller = caller
        return caller

    def check_site(self, request: Request) -> None:
        """Refuse what a page from elsewhere makes a browser ask of a service that asks nobody for a key.

        Raises:
            ForbiddenError: the request is for a name that was made to point here, or another site sent it.
        """
        if self.auth != "none":
            return
        if not is_loopback(request.url.hostname or ""):
            raise ForbiddenError("a service without keys answers at 127.0.0.1 and localhost only: use one of these")
        origin = request.headers.get("origin")
        own = origin is None or urlsplit(origin).netloc == request.url.netloc
        if not own or request.headers.get("sec-fetch-site", "none") not in SAME_SITE:
            raise ForbiddenError("another site sent this, and a service without keys answers only its own pages")

    async def caller_with(self, secret: str, address: str, kind: str = "asking") -> Caller:
        """Who holds a key, and makes one request of a class with it.

        Raises:
            AuthenticationError: there is no key, or it is not good.
            BusyError: the key has asked too often.
            StorageError: the catalogue is away. Where it is, only the log is told: nobody knows yet who asks.
        """
        if self.auth == "none":
            return ANYBODY
        if not secret:
            self.audit.note("key_refused", address=address)
            raise AuthenticationError(
                "this needs a key: send it as 'Authorization: Bearer tml-...' or 'X-API-Key: tml-...'"
            )
        try:
            key = await self.keys.verified(secret, address=address)
        except StorageError as error:
            logger.warning("a key could not be looked up: %s", error.message)
            raise StorageError("keys cannot be looked up now: send this again in a moment") from error
        caller = Caller(key.tenant, key.id, key.admin, address)
        self.rates.take(caller, kind, key.requests_per_minute)
        return caller


class Gate:
    """Reads nobody's body before it is known who sends it; forms of people, who sign in, are the console's business."""

    def __init__(self, app: ASGIApp, *, doors: Doors) -> None:
        self._app = app
        self._doors = doors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        try:
            self._doors.check_site(request)
        except ForbiddenError as error:
            await error_response(error)(scope, receive, send)
            return
        if scope["method"] in WITHOUT_BODY or not scope["path"].startswith(("/v1/", "/api/")):
            await self._app(scope, receive, send)
            return

        async def of_a_caller() -> Message:
            try:
                await self._doors.caller_of(request)
            except FettleError as error:
                raise Refused(error) from error
            return await receive()

        await self._app(scope, of_a_caller, send)


class Guarded(Protocol):
    """Whatever has doors."""

    @property
    def doors(self) -> Doors:
        """Where its requests come in."""
        ...


def presented(request: Request) -> str:
    """The key that a request brings, or nothing."""
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key", "").strip()


def authenticated(service: Guarded) -> Callable[[Request], Awaitable[Caller]]:
    """What routes depend on to know who calls."""

    async def caller_of(request: Request) -> Caller:
        return await service.doors.caller_of(request)

    return caller_of


def administrator(service: Guarded) -> Callable[[Request], Awaitable[Caller]]:
    """What routes depend on that only an admin's key may use."""

    async def admin_of(request: Request) -> Caller:
        caller = await service.doors.caller_of(request)
        if not caller.admin:
            service.doors.audit.note("forbidden", caller, subject=request.url.path)
            raise ForbiddenError(f"the key {caller.key} is no admin's, and {request.url.path} needs one that is")
        return caller

    return admin_of
