"""How a refusal is told to a Tinker client: which status it retries, and which it hands to its user at once.

Clients retry 408, 409, 429 and everything from 500, some of it for hours. Nothing that stays wrong is told so.
"""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic_core import PydanticSerializationError
from starlette.routing import Match
from starlette.types import Scope

from fettle.errors import DataError, EngineError, EnvironmentFault, FettleError, StorageError
from fettle.service import wire
from fettle.service.direct import ends_of
from fettle.service.folders import told as discreetly

NEVER_SAID = frozenset({408, 409})
"""Statuses of ours that a Tinker client takes for an invitation to ask again."""

OF_THE_SERVER = (EngineError, StorageError, EnvironmentFault)
"""Errors of an operation that are no fault of what was asked."""


class TinkerRoute(APIRoute):
    """A route whose errors have the statuses that Tinker clients understand, and always a body."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        self._ends = ends_of(self.path_format)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether a request is for this route."""
        if scope["type"] == "http" and not self._ends.fit(scope["path"]):
            return Match.NONE, {}
        return super().matches(scope)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The route's own handler, with its errors told."""
        handler = super().get_route_handler()

        async def told(request: Request) -> Response:
            try:
                return await handler(wire.QuickRequest(request.scope, request.receive))
            except FettleError as error:
                return refused(error)
            except RequestValidationError as error:
                return wire.invalid_request(error)
            except (PydanticSerializationError, UnicodeEncodeError):
                return refused(DataError("a text has half a character in it (a lone surrogate): send whole ones"))

        return told


def refused(error: FettleError) -> Response:
    """The answer to a request that is not taken in."""
    status = wire.status_of(error)
    return wire.error_response(error, 400 if status in NEVER_SAID else status)


def failed(error: FettleError) -> dict[str, Any]:
    """The answer for an operation that was taken in and failed: the only form in which clients take it for that."""
    return {"error": discreetly(error.message), "category": "server" if isinstance(error, OF_THE_SERVER) else "user"}
