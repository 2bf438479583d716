"""``fettle serve`` with a clock in it: what each request took, and how much of that the backend computed.

``python -m benchmarks.timed_server serve ...`` starts the service as it is, with two wrappers: one around the
application, which notes when each request comes in and when the last byte of its answer goes out, and one around the
backend's calls, which notes when each begins and ends. ``GET /benchmark/requests`` tells, and forgets, the requests.
Beside the clock it reads the processor time of the process, which says the same of a machine that is busy with others.
What is not in it is uvicorn's reading of the request line and headers, which comes before the application is called.
"""

import functools
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import uvicorn

from fettle.cli import main
from fettle.engine.local import LocalBackend

ADDRESS = "/benchmark/requests"
COMPUTING = ("forward", "forward_backward", "optim_step", "sample")

requests: list[tuple[str, "Span"]] = []
computed: list["Span"] = []


@dataclass(frozen=True, slots=True)
class Moment:
    """When: on the clock, and by what this process has computed so far."""

    clock: float
    processor: float


Span = tuple[Moment, Moment]


def moment() -> Moment:
    """Now."""
    return Moment(time.perf_counter(), time.process_time())


class Timed:
    """An application that notes what its requests took."""

    def __init__(self, application: Any) -> None:
        self._application = application

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """One request, or the life of the application."""
        if scope["type"] != "http":
            await self._application(scope, receive, send)
        elif scope["path"] == ADDRESS:
            await _tell(send)
        else:
            ended = started = moment()

            async def noted(message: Any) -> None:
                nonlocal ended
                await send(message)
                ended = moment()

            await self._application(scope, receive, noted)
            requests.append((scope["path"], (started, ended)))


async def _tell(send: Any) -> None:
    """The requests since the last time, each with its seconds and those of the backend within them."""
    told = [{"path": path, **apart(span)} for path, span in requests]
    requests.clear()
    computed.clear()
    body = json.dumps(told).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": body})


def apart(span: Span) -> dict[str, float]:
    """Seconds of a request, and those of the backend within it: on the clock, and of the processor."""
    started, ended = span
    within = [each for each in computed if started.clock <= each[0].clock and each[1].clock <= ended.clock]
    return {
        "seconds": ended.clock - started.clock,
        "computed": sum(end.clock - start.clock for start, end in within),
        "processor_seconds": ended.processor - started.processor,
        "processor_computed": sum(end.processor - start.processor for start, end in within),
    }


def timed(call: Callable[..., Any]) -> Callable[..., Any]:
    """A call of the backend that notes when it was under way."""

    @functools.wraps(call)
    def noted(*arguments: Any, **named: Any) -> Any:
        started = moment()
        try:
            return call(*arguments, **named)
        finally:
            computed.append((started, moment()))

    return noted


def wrap() -> None:
    """Put the clocks in their places."""
    for name in COMPUTING:
        setattr(LocalBackend, name, timed(getattr(LocalBackend, name)))
    made = uvicorn.Config.__init__

    def wrapped(self: uvicorn.Config, app: Any, *arguments: Any, **named: Any) -> None:
        made(self, Timed(app), *arguments, **named)

    uvicorn.Config.__init__ = wrapped  # type: ignore[method-assign]


if __name__ == "__main__":
    wrap()
    main()
