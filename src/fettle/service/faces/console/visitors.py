"""Who looks at the console: signed in with a key, or anybody where the service asks for none.

The cookie is a random name of what is kept here in memory, so a restart signs everybody out. The key itself is verified
anew at each request: a key that is revoked shows nothing from then on.
"""

import hmac
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from fastapi import Request, Response
from starlette.datastructures import FormData

from fettle.errors import AuthenticationError, ForbiddenError
from fettle.service.auth import SAME_SITE, Doors
from fettle.service.callers import ANYBODY, Caller

COOKIE = "fettle_console"
LASTS_S = 12 * 3600
MOST_SIGNED_IN = 64
"""Of one tenant at a time; beyond it the oldest is signed out."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """Somebody who may look."""

    caller: Caller
    csrf: str
    """What each of our forms brings along, and no foreign page knows."""


@dataclass(frozen=True, slots=True)
class _SignedIn:
    tenant: str
    key: str
    csrf: str
    until: float


class Visitors:
    """Those who have signed in."""

    def __init__(self, doors: Doors, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._doors = doors
        self._clock = clock
        self._signed_in: dict[str, _SignedIn] = {}
        self._anybody = Visitor(ANYBODY, secrets.token_urlsafe(32))

    async def sign_in(self, request: Request, response: Response, key: str) -> None:
        """Let somebody in who holds a key.

        Raises:
            AuthenticationError: it is no key that is good.
        """
        caller = await self._doors.caller_with(key, _address(request))
        now = self._clock()
        self._signed_in = {name: kept for name, kept in self._signed_in.items() if kept.until > now}
        own = [name for name, kept in self._signed_in.items() if kept.tenant == caller.tenant]
        for oldest in own[: max(0, len(own) + 1 - MOST_SIGNED_IN)]:
            del self._signed_in[oldest]
        name = secrets.token_urlsafe(32)
        self._signed_in[name] = _SignedIn(caller.tenant, key, secrets.token_urlsafe(32), now + LASTS_S)
        secure = request.url.scheme == "https"
        response.set_cookie(COOKIE, name, max_age=LASTS_S, httponly=True, samesite="strict", secure=secure)

    def sign_out(self, request: Request, response: Response) -> None:
        """Forget who asks."""
        self._signed_in.pop(request.cookies.get(COOKIE, ""), None)
        response.delete_cookie(COOKIE, httponly=True, samesite="strict")

    async def visitor(self, request: Request) -> Visitor:
        """Who asks.

        Raises:
            AuthenticationError: nobody who has signed in, or whose key is still good.
        """
        if self._doors.auth == "none":
            return self._anybody
        kept = self._signed_in.get(request.cookies.get(COOKIE, ""))
        if kept is None or kept.until <= self._clock():
            raise AuthenticationError("sign in with a key of this service")
        return Visitor(await self._doors.caller_with(kept.key, _address(request)), kept.csrf)

    async def form(self, request: Request) -> tuple[Visitor, FormData]:
        """Who sends one of our forms, and what it says.

        Raises:
            AuthenticationError: as for :meth:`visitor`.
            ForbiddenError: it is not one of ours.
        """
        visitor = await self.visitor(request)
        check_same_site(request)
        form = await request.form()
        if not hmac.compare_digest(text(form, "csrf").encode(), visitor.csrf.encode()):
            raise ForbiddenError("this form is not of this page, or is from before you signed in: load the page again")
        return visitor, form


def check_same_site(request: Request) -> None:
    """Refuse what another site sends.

    Raises:
        ForbiddenError: it does.
    """
    if request.headers.get("sec-fetch-site", "none") not in SAME_SITE:
        raise ForbiddenError("another site sent this form: open the console itself")


def text(form: FormData, name: str) -> str:
    """What a field says; a file says nothing."""
    value = form.get(name, "")
    return value.strip() if isinstance(value, str) else ""


def _address(request: Request) -> str:
    return request.client.host if request.client else ""
