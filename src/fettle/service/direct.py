"""Routes whose endpoints are called with what they name, and nothing is built for what they do not ask for."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

Endpoint = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Ends:
    """How the addresses of a route begin and end: what tells most of those of others apart from them, in no time."""

    first: str
    last: str

    def fit(self, path: str) -> bool:
        """Whether a path may be one of them."""
        return path.endswith(self.last) and self.first in path


def ends_of(template: str) -> Ends:
    """The texts before and after what varies.

    >>> ends_of("/v1/runs/{run_id}/sample"), ends_of("/healthz")
    (Ends(first='/v1/runs/', last='/sample'), Ends(first='/healthz', last='/healthz'))
    """
    return Ends(template.partition("{")[0], template.rpartition("}")[2])


class DirectRoute(APIRoute):
    """A route of an endpoint that takes the request, words of its path, single values of its query, and a caller.

    It is described like any other; the endpoint answers with a response, and reads the body by itself. What the
    framework would have set up for bodies, forms, and dependencies that end after the answer takes as long as all of
    an operation's journal.
    """

    def __init__(self, path: str, endpoint: Endpoint, **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        self._ends = ends_of(self.path_format)
        self._check()

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether a request is for this route."""
        if scope["type"] == "http" and not self._ends.fit(scope["path"]):
            return Match.NONE, {}
        return super().matches(scope)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; errors are told by the layers around."""
        if scope["method"] not in (self.methods or ()):
            await super().handle(scope, receive, send)
            return
        request = Request(scope, receive, send)
        response: Response = await self.endpoint(**await self._named(request))
        await response(scope, receive, send)

    async def _named(self, request: Request) -> dict[str, Any]:
        """What the endpoint is called with.

        Raises:
            RequestValidationError: a value of the query cannot be what it is.
        """
        asks = self.dependant
        named: dict[str, Any] = dict(request.path_params)
        for each in asks.dependencies:
            if each.name and each.call:
                named[each.name] = await each.call(request)
        if asks.request_param_name:
            named[asks.request_param_name] = request
        given, wrong = dict(parse_qsl(request.scope["query_string"].decode("latin-1"), keep_blank_values=True)), []
        for field in asks.query_params:
            if field.alias in given:
                named[field.name], errors = field.validate(given[field.alias], {}, loc=("query", field.alias))
                wrong += errors or []
        if wrong:
            raise RequestValidationError(wrong)
        return named

    def _check(self) -> None:
        asks = self.dependant
        beyond: list[Any] = [*asks.body_params, *asks.header_params, *asks.cookie_params]
        beyond += [field for field in asks.query_params if field.field_info.is_required()]
        beyond += [field for field in asks.path_params if field.field_info.annotation is not str]
        beyond += [each for each in asks.dependencies if each.request_param_name != "request" or each.query_params]
        if beyond:
            raise TypeError(f"{self.path} asks for more than a direct route looks at: {beyond}")
