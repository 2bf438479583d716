"""All routes of the native face."""

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from fettle.service.auth import authenticated
from fettle.service.callers import Caller
from fettle.service.core import Service
from fettle.service.direct import DirectRoute
from fettle.service.faces.native.answered import Answered
from fettle.service.faces.native.checkpoints import add_checkpoints
from fettle.service.faces.native.operations import add_operations
from fettle.service.faces.native.runs import add_runs
from fettle.service.faces.native.samplers import add_samplers
from fettle.service.faces.native.texts import add_texts
from fettle.service.wire import answer


def routes(service: Service) -> APIRouter:
    """Everything under ``/v1`` that is not another face's."""
    router = APIRouter(prefix="/v1", tags=["native"], route_class=DirectRoute)
    answered = Answered(service)
    add_operations(router, service, answered)  # first, since routes are looked through in this order
    add_samplers(router, service, answered)
    add_runs(router, service)
    add_checkpoints(router, service)
    add_texts(router, service)

    @router.get("/capabilities", summary="What the service's engine can do, and how it is doing")
    async def capabilities(request: Request, caller: Annotated[Caller, Depends(authenticated(service))]) -> Response:
        settings = service.settings
        limits = {
            name: getattr(settings, name) for name in ("max_body_mib", "max_rank", "max_policies", "max_samplers")
        }
        return answer(
            request,
            {
                **asdict(await service.broker.capabilities()),
                "models": [model.name for model in service.models],
                "statistics": dict(await service.broker.statistics()),
                "limits": limits,
            },
        )

    return router
