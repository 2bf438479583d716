"""The door: who a request comes from, or why it may not come in."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from fastapi import Request

from fettle.errors import AuthenticationError, ForbiddenError
from fettle.service.audit import Audit
from fettle.service.callers import ANYBODY, Caller
from fettle.service.keys import Keyring
from fettle.service.rates import Rates, class_of


@dataclass(frozen=True)
class Doors:
    """Where every request comes in."""

    keys: Keyring
    audit: Audit
    rates: Rates
    auth: Literal["keys", "none"]

    async def caller_of(self, request: Request) -> Caller:
        """Who a request comes from, which the request remembers; it is counted against what the key may ask for.

        Raises:
            AuthenticationError: it brings no key, or one that is not good.
            BusyError: the key has asked too often.
        """
        address = request.client.host if request.client else ""
        caller = await self.caller_with(presented(request), address, class_of(request.method, request.url.path))
        request.state.caller = caller
        return caller

    async def caller_with(self, secret: str, address: str, kind: str = "asking") -> Caller:
        """Who holds a key, and makes one request of a class with it.

        Raises:
            AuthenticationError: there is no key, or it is not good.
            BusyError: the key has asked too often.
        """
        if self.auth == "none":
            return ANYBODY
        if not secret:
            self.audit.note("key_refused", address=address)
            raise AuthenticationError(
                "this needs a key: send it as 'Authorization: Bearer tml-...' or 'X-API-Key: tml-...'"
            )
        key = await self.keys.verified(secret, address=address)
        caller = Caller(key.tenant, key.id, key.admin, address)
        self.rates.take(caller, kind, key.requests_per_minute)
        return caller


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
