"""Sessions: what one client makes lives as long as it is heard of."""

import secrets

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from fettle.errors import NotFoundError, StateError
from fettle.service.faces.tinker.bodies import CreateSession, FinishSession, SessionOnly
from fettle.service.faces.tinker.face import Face, Who, add

OF_STABLE_REINFORCE = (
    "stable_reinforce is carried out as cispo with ratios clipped to [0, 4], and kl_coeff times a k3 estimate of the "
    "divergence from the sampler: the formula of the hosted service is not public"
)


class Sessions:
    """The routes of sessions."""

    def __init__(self, face: Face) -> None:
        self._face = face

    def add_to(self, router: APIRouter) -> None:
        """Put them on a router."""
        add(router, "POST", "/create_session", self.create)
        add(router, "POST", "/session_heartbeat", self.heartbeat)
        add(router, "POST", "/sessions/{session}/finish", self.finish)

    async def create(self, who: Who, request: Request, body: CreateSession) -> JSONResponse:
        """A session; the same idempotency key again is the same one."""
        key = request.headers.get("x-idempotency-key") or secrets.token_hex(16)
        named = {"display_name": body.display_name} if body.display_name else {}
        metadata = {name: str(value) for name, value in (body.user_metadata or {}).items()} | named
        session = await self._face.service.create_session(who, metadata, tuple(body.tags), key)
        told = {"session_id": session, "type": "create_session"}
        if self._face.service.settings.stable_reinforce:
            told["warning_message"] = OF_STABLE_REINFORCE
        return JSONResponse(told)

    async def heartbeat(self, who: Who, body: SessionOnly) -> Response:
        """The client is there; once its session is over, 410 ends its heartbeats."""
        try:
            self._face.service.heartbeat(who, body.session_id)
        except (NotFoundError, StateError) as error:
            return JSONResponse({"detail": error.message}, 410)
        return JSONResponse({"type": "session_heartbeat"})

    async def finish(self, who: Who, session: str, body: FinishSession) -> Response:
        """The session is over, and what it held is given back."""
        await self._face.service.finish_session(who, session)
        return Response(status_code=204)
