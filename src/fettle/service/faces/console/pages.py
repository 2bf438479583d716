"""Pages put together: templates that escape everything, the files beside them, and what a browser may do with them."""

import hashlib
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from fettle.errors import AuthenticationError, FettleError, NotFoundError
from fettle.service.clock import Clock
from fettle.service.faces.console import shown
from fettle.service.faces.console.visitors import Visitor
from fettle.service.folders import told as discreetly
from fettle.service.wire import status_of

HERE = Path(__file__).parent
KINDS = MappingProxyType({".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"})
HEADERS: Mapping[str, str] = MappingProxyType(
    {
        "Content-Security-Policy": (
            "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
        ),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cache-Control": "no-store",
    }
)
TITLES = MappingProxyType({400: "That cannot be", 403: "Not allowed", 404: "Not here", 409: "Not now"})


class Pages:
    """The console's templates."""

    def __init__(self, clock: Clock) -> None:
        self._files = {path.name: path for path in (HERE / "static").iterdir() if path.suffix in KINDS}
        self._digests = {name: hashlib.sha256(path.read_bytes()).hexdigest()[:12] for name, path in self._files.items()}
        self._environment = Environment(
            loader=FileSystemLoader(HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters |= {
            "visible": shown.visible,
            "discreet": discreetly,
            "number": shown.number,
            "size": shown.size,
            "moment": shown.moment,
            "age": lambda since: shown.age(since, clock()),
        }
        self._environment.globals["static"] = lambda name: f"/static/{name}?{self._digests[name]}"

    def page(self, name: str, visitor: Visitor | None, *, here: str = "", status: int = 200, **values: Any) -> Response:
        """A whole page; ``here`` is which of the pages in its head it is."""
        pages = [("/", "Runs"), ("/queue", "Queue"), ("/usage", "Usage")]
        if visitor is not None and visitor.caller.admin:
            pages.append(("/keys", "Keys"))
        return self.part(name, visitor, status=status, pages=pages, here=here, **values)

    def part(self, name: str, visitor: Visitor | None, *, status: int = 200, **values: Any) -> Response:
        """A part of a page, which is put in the place of its older self."""
        html = self._environment.get_template(name).render(visitor=visitor, **values)
        return HTMLResponse(html, status, HEADERS)

    def file(self, name: str) -> Response:
        """One of the files beside the templates. Its address changes with what is in it.

        Raises:
            NotFoundError: there is none of that name.
        """
        if name not in self._files:
            raise NotFoundError(f"there is no file {name!r} here")
        path = self._files[name]
        headers = {**HEADERS, "Cache-Control": "public, max-age=31536000, immutable"}
        return Response(path.read_bytes(), 200, headers, media_type=KINDS[path.suffix])

    def route_class(self) -> type[APIRoute]:
        """Routes whose errors are pages; who is not signed in is led to where one does."""
        pages = self

        class ConsoleRoute(APIRoute):
            """A route of the console."""

            def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
                """The route's own handler, with its errors told."""
                handler = super().get_route_handler()

                async def told(request: Request) -> Response:
                    try:
                        return await handler(request)
                    except AuthenticationError:
                        return _to_sign_in(request)
                    except FettleError as error:
                        return pages._told(request, status_of(error), error.message)
                    except RequestValidationError:
                        return pages._told(request, 400, "a number in this address, or in this form, is none")

                return told

        return ConsoleRoute

    def _told(self, request: Request, status: int, message: str) -> Response:
        title = TITLES.get(status, "That did not work")
        back = "/" if request.method == "GET" else str(request.headers.get("referer") or "/")
        safe = back if back.startswith(("/", str(request.base_url))) else "/"
        return self.page(
            "error.html", None, status=status, title=title, message=shown.visible(discreetly(message)), back=safe
        )


def _to_sign_in(request: Request) -> Response:
    if "hx-request" in request.headers:  # a part of a page: the whole page goes
        return Response(None, 200, {**HEADERS, "HX-Redirect": "/sign-in"})
    asked = request.url.path if request.method == "GET" and not request.url.path.startswith("/parts/") else "/"
    return RedirectResponse(f"/sign-in?next={quote(asked)}", 303, HEADERS)
