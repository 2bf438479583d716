"""Start-up: what a client is told to do, and what is served."""

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from fettle.service.faces.tinker.bodies import Body
from fettle.service.faces.tinker.face import Face, Who, add

CLIENT = {
    "pjwt_auth_enabled": False,
    "fwdbwd_max_chunk_len": 256,
    "parallel_fwdbwd_chunks": True,
    "sample_use_retrieve_futures": True,
    "sample_join_sampling_session": True,
    "sample_max_concurrent_requests": 512,
}
"""Chunks of 256 data; one long poll a sampling client instead of one a sample."""

DYNAMIC = {"refresh_interval_sec": 300, "sample_cancel_enabled": True}


class Control:
    """The routes of start-up."""

    def __init__(self, face: Face) -> None:
        self._face = face

    def add_to(self, router: APIRouter) -> None:
        """Put them on a router."""
        add(router, "POST", "/client/config", self.client)
        add(router, "POST", "/client/dynamic_config", self.dynamic)
        add(router, "GET", "/healthz", self.healthy)
        add(router, "GET", "/get_server_capabilities", self.capabilities)
        add(router, "POST", "/telemetry", self.telemetry)

    async def client(self) -> JSONResponse:
        """How a client is to behave."""
        return JSONResponse(CLIENT)

    async def dynamic(self) -> JSONResponse:
        """What it asks for again from time to time."""
        return JSONResponse(DYNAMIC)

    async def healthy(self) -> JSONResponse:
        """The server answers."""
        return JSONResponse({"status": "ok"})

    async def capabilities(self) -> JSONResponse:
        """Every name under which a model is served."""
        models = [
            {"model_name": name, "max_context_length": model.context, "trainable": True, "sampleable": True}
            for model in self._face.service.models
            for name in (model.name, *model.aliases)
        ]
        return JSONResponse({"supported_models": models})

    async def telemetry(self, who: Who, body: Body) -> JSONResponse:
        """What clients tell of themselves is not kept."""
        return JSONResponse({"status": "accepted"})
