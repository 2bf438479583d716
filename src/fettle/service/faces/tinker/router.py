"""All routes of the Tinker face."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request

from fettle.service.auth import authenticated
from fettle.service.callers import Caller
from fettle.service.core import Service
from fettle.service.faces.tinker.control import Control
from fettle.service.faces.tinker.downloads import Downloads
from fettle.service.faces.tinker.face import Face
from fettle.service.faces.tinker.futures import Futures
from fettle.service.faces.tinker.numbering import Numbering
from fettle.service.faces.tinker.refusals import TinkerRoute
from fettle.service.faces.tinker.rest import Rest
from fettle.service.faces.tinker.samples import Samples
from fettle.service.faces.tinker.sampling import Sampling
from fettle.service.faces.tinker.saving import Saving
from fettle.service.faces.tinker.sessions import Sessions
from fettle.service.faces.tinker.training import Training

PREFIX = "/api/v1"


def routes(service: Service) -> APIRouter:
    """Everything under ``/api/v1``."""

    async def known(request: Request, caller: Annotated[Caller, Depends(authenticated(service))]) -> None:
        request.state.caller = caller

    face = Face(service, Numbering(service.broker), Samples(), service.clock())
    keyed = APIRouter(prefix=PREFIX, tags=["tinker"], route_class=TinkerRoute, dependencies=[Depends(known)])
    keyless = APIRouter(prefix=PREFIX, tags=["tinker"], route_class=TinkerRoute)
    for part in (Control, Sessions, Training, Saving, Sampling, Futures, Rest):
        part(face).add_to(keyed)
    Downloads(face).add_to(keyed, keyless)
    keyed.routes.extend(keyless.routes)
    return keyed
