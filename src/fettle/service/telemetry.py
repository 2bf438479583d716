"""Traces over OTLP: a span a request, and under it one for each operation or draw, until it is done."""

from opentelemetry.propagate import extract
from opentelemetry.trace import SpanKind, Status, StatusCode
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fettle.broker import Promise
from fettle.errors import FettleError
from fettle.service.logs import REQUEST
from fettle.tracking.otel import end, spans_to


class Traces:
    """Where spans go. A caller's ``traceparent`` is gone on from."""

    def __init__(self, endpoint: str) -> None:
        self._provider = spans_to(endpoint, grpc=False)
        self._tracer = self._provider.get_tracer("fettle.service")

    def submitted(self, promise: Promise) -> None:
        """Begin the span of something that is to be computed, under that of the request."""
        span = self._tracer.start_span(promise.kind, attributes={"fettle.id": promise.id, "fettle.run": promise.policy})

        def done(promise: Promise) -> None:
            span.set_attribute("fettle.seconds", promise.seconds)
            span.set_attribute("fettle.tokens", promise.tokens)
            if isinstance(promise.answer, FettleError):
                span.set_status(Status(StatusCode.ERROR, promise.answer.code))
            span.end()

        promise.when_done(done)

    async def request(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request within a span."""
        parent = extract(dict(Headers(scope=scope).items()))
        with self._tracer.start_as_current_span(scope["method"], context=parent, kind=SpanKind.SERVER) as span:

            async def sent(message: Message) -> None:
                if message["type"] == "http.response.start":
                    route = getattr(scope.get("route"), "path", "unmatched")
                    span.update_name(f"{scope['method']} {route}")
                    span.set_attributes({"http.route": route, "http.response.status_code": message["status"]})
                await send(message)

            span.set_attribute("fettle.request", REQUEST.get())
            await app(scope, receive, sent)

    def close(self) -> None:
        """Send what is left."""
        end(self._provider)


class Traced:
    """The layer that puts requests within spans."""

    def __init__(self, app: ASGIApp, *, traces: Traces) -> None:
        self._app = app
        self._traces = traces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "http":
            await self._traces.request(self._app, scope, receive, send)
        else:
            await self._app(scope, receive, send)
