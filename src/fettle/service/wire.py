"""The wire: status codes, media types and bodies. Nothing else here knows them."""

import asyncio
import json
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic_core import from_json
from starlette.exceptions import HTTPException

from fettle.errors import (
    AuthenticationError,
    BalanceError,
    BusyError,
    CancelledError,
    DataError,
    EngineError,
    EnvironmentFault,
    FettleError,
    ForbiddenError,
    NotFoundError,
    SequenceError,
    StateError,
    StorageError,
    TimeoutError,
    TooLargeError,
)
from fettle.frames import MEDIA_TYPE, Tree, packed, plain, unpacked
from fettle.service.folders import told

JSON = "application/json"
BODY = "fettle.body"
"""Where a request's scope has its body, which is here until it is let go if it is kept."""
LARGE = 64 * 1024
"""Bytes from which on a body is opened, parsed and written in a thread, while others are answered."""

Made = TypeVar("Made")

STATUS: Mapping[type[FettleError], int] = MappingProxyType(
    {
        AuthenticationError: 401,
        BalanceError: 402,
        ForbiddenError: 403,
        NotFoundError: 404,
        TimeoutError: 408,
        CancelledError: 409,
        SequenceError: 409,
        StateError: 409,
        TooLargeError: 413,
        BusyError: 429,
        EngineError: 500,
        EnvironmentFault: 500,
        StorageError: 503,
    }
)
"""Of errors; all others are faults of what was asked: 400."""

STORAGE_RETRY_S = 5.0
"""After which a full disk or an unreachable database is worth another try."""


class Refused(HTTPException):
    """An error of ours, where only the framework's own pass through."""

    def __init__(self, error: FettleError) -> None:
        super().__init__(status_of(error), error.message, {"Connection": "close"})
        self.error = error


def status_of(error: FettleError) -> int:
    """The status code that says the error."""
    return STATUS.get(type(error), 400)


def error_tree(error: FettleError) -> dict[str, Tree]:
    """The body that says the error."""
    return _said(error.code, told(error.message))


def error_response(error: FettleError, status: int | None = None) -> Response:
    """The answer that says the error; ``status`` in the place of its own."""
    headers = {}
    retry_after = getattr(error, "retry_after", STORAGE_RETRY_S if isinstance(error, StorageError) else None)
    if retry_after is not None:
        headers = {"Retry-After": str(math.ceil(retry_after)), "Retry-After-Ms": str(math.ceil(1000 * retry_after))}
    if isinstance(error, AuthenticationError):
        headers["WWW-Authenticate"] = "Bearer"
    return _json(error_tree(error), status or status_of(error), headers)


def framework_error(error: HTTPException) -> Response:
    """What the framework itself refuses: no such address, no such method."""
    if isinstance(error, Refused):
        answer = error_response(error.error)
        answer.headers["Connection"] = "close"
        return answer
    codes = {401: "authentication", 403: "forbidden", 404: "not_found", 405: "method", 413: "too_large"}
    sentence = {
        404: "there is nothing at this address: see /openapi.json for what there is",
        405: "this address does not take that method: see /openapi.json for those it takes",
    }.get(error.status_code, str(error.detail))
    return _json(_said(codes.get(error.status_code, "data"), sentence), error.status_code, dict(error.headers or {}))


def invalid_request(error: RequestValidationError) -> Response:
    """A body or a parameter that cannot be what it is; the places come first."""
    wrong = [f"{'.'.join(str(part) for part in each['loc'])}: {each['msg']}" for each in error.errors()]
    return _json(_said("data", "; ".join(wrong)), 422, {})


def internal_error() -> Response:
    """What nobody foresaw, after which the server ends the connection. The log has it, under the request's id."""
    message = "the service failed at this request: look for its X-Request-Id in the service's log"
    return _json(_said("internal", message), 500, {"Connection": "close"})


def wants_frames(request: Request) -> bool:
    """Whether the caller takes frames."""
    return MEDIA_TYPE in request.headers.get("accept", "")


def answer(request: Request, tree: Tree, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """The tree as the caller wants it: a frame where that is accepted, else JSON."""
    if wants_frames(request):
        return Response(packed(tree), status, headers, media_type=MEDIA_TYPE)
    return _json(plain(tree), status, headers or {})


def address_of(request: Request, public_url: str | None) -> str:
    """Of this service: never what a request says in its Host header, which can be anything."""
    if public_url is not None:
        return public_url.rstrip("/")
    host, port = request.scope["server"]
    return f"{request.url.scheme}://{f'[{host}]' if ':' in host else host}:{port}"


class QuickRequest(Request):
    """A request of which the framework reads the JSON, in a sixth of the time that its own way takes."""

    async def json(self) -> Any:
        """What the body says."""
        said = await self.body()
        try:
            return from_json(said)
        except ValueError as error:
            json.loads(said)  # which says what is wrong as the framework expects it
            # It lets halves of characters pass, which no answer can name.
            raise json.JSONDecodeError(str(error), said.decode(errors="replace"), 0) from error


def media_type(request: Request) -> str:
    """Of the body, without its parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def made_of(request: Request, made: Callable[[bytes], Made]) -> Made:
    """What ``made`` makes of a request's body, which is gone once this returns.

    A large one is parsed beside the event loop: requests that are sent before others were answered may overtake them.
    """
    body = request.scope[BODY]
    body.kept = True
    try:
        # Not by request.body(), which would keep it until the answer is out.
        said = b"".join([piece async for piece in request.stream()])
        if len(said) < LARGE:
            return made(said)
        return await asyncio.to_thread(made, said)
    finally:
        body.let_go()


def tree_reader(request: Request) -> Callable[[bytes], Tree]:
    """What reads a body of the request's media type, JSON or a frame; nothing said is an empty mapping.

    It raises a ``DataError`` for what is neither.
    """
    kind = media_type(request)
    return unpacked if kind == MEDIA_TYPE else lambda said: _read(kind, said)


def _read(kind: str, said: bytes) -> Tree:
    if not said:
        return {}
    if kind != JSON:
        raise DataError(f"the body's Content-Type is {kind or 'not given'}: send {JSON} or {MEDIA_TYPE}")
    try:
        return from_json(said, allow_inf_nan=False)
    except ValueError as error:
        raise DataError(f"the body is no JSON that can be read: {error}") from error


def _said(code: str, message: str) -> dict[str, Tree]:
    return {"error": {"code": code, "message": message}, "detail": message}


def _json(tree: Any, status: int, headers: Mapping[str, str]) -> Response:
    text = json.dumps(tree, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Response(text.encode("utf-8", "replace"), status, headers, media_type=JSON)
