"""The service over HTTP: every face, and what stands around them."""

from collections.abc import Callable
from types import MappingProxyType
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

import fettle
from fettle.errors import FettleError
from fettle.service.auth import Gate, administrator
from fettle.service.callers import Caller
from fettle.service.core import Service
from fettle.service.faces import admin, console, native, openai, tinker
from fettle.service.folders import Discreet, Folders
from fettle.service.limits import Limits
from fettle.service.observed import Observed
from fettle.service.wire import error_response, framework_error, invalid_request

FACES: MappingProxyType[str, Callable[[Service], APIRouter]] = MappingProxyType(
    {
        "native": native.routes,
        "tinker": tinker.routes,
        "administration": admin.routes,
        "openai": openai.routes,
        "console": console.routes,
    }
)
"""Each a protocol that clients know; those that are asked most come first, since routes are looked through in order."""

DESCRIPTION = """Train and sample language models over HTTP.

Bodies and answers are JSON, or frames (`application/vnd.fettle.frame`), which hold arrays as raw bytes; an answer is a
frame where `Accept` says so. Every error is `{"error": {"code", "message"}, "detail"}`. Keys are sent as
`Authorization: Bearer ...` or `X-API-Key: ...`."""


def app_of(service: Service, *layers: Callable[[ASGIApp], ASGIApp]) -> FastAPI:
    """The application, which serves all faces of the service, with further layers around it."""
    app = FastAPI(
        title="Fettle",
        version=fettle.__version__,
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # ours are told by layers of our own
    )
    app.add_middleware(Gate, doors=service.doors)
    app.add_middleware(Limits, max_body_mib=service.settings.max_body_mib, timeout_s=service.settings.request_timeout_s)
    app.add_middleware(Discreet, folders=Folders(service.settings))
    for layer in layers:
        app.add_middleware(layer)
    app.add_middleware(Observed, service=service)
    app.add_exception_handler(FettleError, _error)
    app.add_exception_handler(HTTPException, _framework_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    # Side by side, not within each other: a router within another looks twice for the route of each request.
    for router in (_health(service), *(routes(service) for routes in FACES.values())):
        app.router.routes.extend(router.routes)
    return app


def _health(service: Service) -> APIRouter:
    router = APIRouter(tags=["operation"])

    @router.get("/healthz", summary="Whether the process answers")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @router.get("/readyz", summary="Whether a token was really generated, and work is taken in")
    async def readyz(response: Response) -> dict[str, bool]:
        ready = service.ready and not service.stopping and service.broker.failed is None
        response.status_code = 200 if ready else 503
        return {"ready": ready}

    @router.get("/metrics", summary="Numbers for Prometheus", response_class=Response)
    async def metrics(_: Annotated[Caller, Depends(administrator(service))]) -> Response:
        """They name tenants and what was computed for each; an admin's key reads them."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    return router


async def _error(request: Request, error: Any) -> Response:
    return error_response(error)


async def _framework_error(request: Request, error: Any) -> Response:
    return framework_error(error)


async def _invalid(request: Request, error: Any) -> Response:
    return invalid_request(error)
