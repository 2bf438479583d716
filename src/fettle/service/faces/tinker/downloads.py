"""Checkpoints to be downloaded: addresses that need no key, for a while."""

import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, StreamingResponse

from fettle.errors import NotFoundError
from fettle.service.callers import Caller
from fettle.service.faces.tinker import ids
from fettle.service.faces.tinker.face import Face, Who, add
from fettle.service.wire import address_of

LASTS = timedelta(hours=1)
MOST_TICKETS = 256
"""Of one tenant at a time; beyond it the oldest is good no longer."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """Leave to read one checkpoint's files."""

    caller: Caller
    checkpoint: str
    until: datetime


class Downloads:
    """The routes of downloads."""

    def __init__(self, face: Face) -> None:
        self._service = face.service
        self._tickets: dict[str, Ticket] = {}

    def add_to(self, router: APIRouter, keyless: APIRouter) -> None:
        """Put them on a router, and those that need no key on another."""
        add(router, "GET", "/training_runs/{run}/checkpoints/{kind}/{name}/external_weights_urls", self.urls)
        add(keyless, "GET", "/external_weights/{ticket}/{file:path}", self.file)

    async def urls(self, who: Who, request: Request, run: str, kind: str, name: str) -> JSONResponse:
        """Where each of a checkpoint's files can be read, for an hour."""
        checkpoint = ids.own_id(run, kind, name)
        files = await self._service.files(who, checkpoint)
        now = datetime.now(UTC)
        self._tickets = {token: ticket for token, ticket in self._tickets.items() if ticket.until > now}
        own = [token for token, ticket in self._tickets.items() if ticket.caller.tenant == who.tenant]
        for oldest in own[: max(0, len(own) + 1 - MOST_TICKETS)]:
            del self._tickets[oldest]
        token = secrets.token_urlsafe(24)
        ticket = self._tickets[token] = Ticket(who, checkpoint, now + LASTS)
        base = address_of(request, self._service.settings.public_url) + request.url.path.partition("/training_runs/")[0]
        urls = {file: f"{base}/external_weights/{token}/{file}" for file, _ in files}
        return JSONResponse({"urls": urls, "expires": ticket.until.isoformat()})

    async def file(self, ticket: str, file: str) -> StreamingResponse:
        """One file."""
        leave = self._tickets.get(ticket)
        if leave is None or leave.until < datetime.now(UTC):
            raise NotFoundError("this address has expired, or never was: ask for external_weights_urls again")
        if leave.caller.key:  # which may have been revoked since
            await self._service.keys.check(leave.caller.key)
        pieces = self._service.file(leave.caller, leave.checkpoint, file)
        # What cannot be read is refused before an answer is begun.
        first = await anext(pieces, b"")
        return StreamingResponse(_joined(first, pieces), media_type="application/octet-stream")


async def _joined(first: bytes, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in pieces:
        yield piece
