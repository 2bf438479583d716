"""Errors in the shape that OpenAI's clients read, with the status codes that they tell apart."""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from fettle.errors import (
    AuthenticationError,
    BalanceError,
    BusyError,
    DataError,
    FettleError,
    ForbiddenError,
    NotFoundError,
)
from fettle.service.folders import told as discreetly
from fettle.service.wire import QuickRequest, Refused, error_response, status_of

KINDS: Mapping[type[FettleError], str] = MappingProxyType(
    {
        AuthenticationError: "authentication_error",
        BalanceError: "insufficient_quota",
        BusyError: "rate_limit_error",
        ForbiddenError: "permission_error",
        NotFoundError: "not_found_error",
    }
)
"""What OpenAI calls the kinds of errors; others are the request's fault below status 500, and ours from there."""


INVALID = "invalid_request_error"
CONFLICT = 409
"""Clients send a conflict again, as if it could pass; ours do not, and so they are told 400."""


class FieldError(DataError):
    """A field of a request cannot be what it is; ``reason`` is OpenAI's code for it."""

    def __init__(self, field: str, message: str, reason: str = "invalid_value") -> None:
        super().__init__(message)
        self.field, self.reason = field, reason


class OpenAIRoute(APIRoute):
    """A route whose errors have OpenAI's shape."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The route's own handler, with its errors told."""
        handler = super().get_route_handler()

        async def told(request: Request) -> Response:
            try:
                return await handler(QuickRequest(request.scope, request.receive))
            except FettleError as error:
                return refused(error)
            except Refused as error:
                return refused(error.error)
            except HTTPException as error:  # a body that cannot even be read
                return JSONResponse(_said(str(error.detail), INVALID, None, "invalid_body"), error.status_code)
            except RequestValidationError as error:
                return JSONResponse(_invalid(error.errors()), 400)

        return told


def refused(error: FettleError) -> Response:
    """The answer to a request that fails."""
    status = status_of(error)
    answer = error_response(error, 400 if status == CONFLICT else status)
    headers = {name: value for name, value in answer.headers.items() if not name.startswith("content-")}
    return JSONResponse(error_body(error), answer.status_code, headers)


def error_body(error: FettleError) -> dict[str, Any]:
    """The body that says an error."""
    whose = INVALID if status_of(error) < 500 else "server_error"
    code, field = error.code, None
    if isinstance(error, FieldError):
        code, field = error.reason, error.field
    elif isinstance(error, NotFoundError):  # of weights: nothing else is looked for here
        code, field = "model_not_found", "model"
    return _said(discreetly(error.message), KINDS.get(type(error), whose), field, code)


def _invalid(errors: Sequence[Any]) -> dict[str, Any]:
    """The body for a request that is no such body: the first field that is wrong, as exactly as can be said."""
    first = [part for part in errors[0]["loc"] if part != "body"][:1]
    same = [error for error in errors if [part for part in error["loc"] if part != "body"][:1] == first]
    error = max(reversed(same), key=lambda each: len(each["loc"]))
    if error["type"] == "json_invalid":
        return _said(f"the body is no JSON: {error['ctx']['error']}", INVALID, None, "invalid_json")
    # Which form of a field was tried is no part of where the field is.
    place = ".".join(str(part) for part in error["loc"][1:] if isinstance(part, int) or part.isidentifier())
    code = "missing_required_parameter" if error["type"] == "missing" else "invalid_value"
    if error["type"] == "refused":
        whole, inside = error["ctx"]["message"], str(first[0]) if first else error["ctx"]["field"]
        return _said(whole if place in ("", inside) else f"{place}: {whole}", INVALID, inside, code)
    return _said(f"{place or 'the body'}: {error['msg'].lower()}", INVALID, str(first[0]) if first else None, code)


def _said(message: str, kind: str, field: str | None, code: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": field, "code": code}}
