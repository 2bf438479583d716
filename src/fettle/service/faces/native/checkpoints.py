"""Checkpoints: listed, fetched, kept for a while, published, deleted."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from starlette.responses import StreamingResponse

from fettle.service.auth import authenticated
from fettle.service.callers import Caller
from fettle.service.core import Service
from fettle.service.faces.native.bodies import TTL
from fettle.service.faces.native.shown import checkpoint_tree
from fettle.service.said import Limit, Offset, described, said
from fettle.service.wire import answer

ONE = "/checkpoints/{run_id}/{kind}/{name}"


def add_checkpoints(router: APIRouter, service: Service) -> None:
    """The routes of checkpoints."""
    who = Annotated[Caller, Depends(authenticated(service))]

    @router.get("/checkpoints", summary="The caller's checkpoints, newest first")
    async def checkpoints(request: Request, caller: who, limit: Limit = 100, offset: Offset = 0) -> Response:
        found, total = await service.checkpoints(caller, limit=limit, offset=offset)
        return answer(request, {"checkpoints": [checkpoint_tree(service, each) for each in found], "total": total})

    @router.get("/runs/{run_id}/checkpoints", summary="A run's checkpoints, newest first")
    async def of_run(request: Request, caller: who, run_id: str, limit: Limit = 100, offset: Offset = 0) -> Response:
        found, total = await service.checkpoints(caller, run_id=run_id, limit=limit, offset=offset)
        return answer(request, {"checkpoints": [checkpoint_tree(service, each) for each in found], "total": total})

    @router.get(ONE, summary="One checkpoint")
    async def checkpoint(request: Request, caller: who, run_id: str, kind: str, name: str) -> Response:
        return answer(request, checkpoint_tree(service, service.checkpoint(caller, f"{run_id}/{kind}/{name}")))

    @router.delete(ONE, summary="Delete a checkpoint")
    async def delete(request: Request, caller: who, run_id: str, kind: str, name: str) -> Response:
        await service.delete_checkpoint(caller, f"{run_id}/{kind}/{name}")
        return answer(request, {"deleted": f"{run_id}/{kind}/{name}"})

    @router.put(
        f"{ONE}/ttl",
        summary="Say how long a checkpoint is kept",
        openapi_extra=described(TTL, day={"ttl_seconds": 86400}),
    )
    async def ttl(request: Request, caller: who, run_id: str, kind: str, name: str) -> Response:
        body = await said(request, TTL)
        changed = await service.set_ttl(caller, f"{run_id}/{kind}/{name}", body.ttl_seconds)
        return answer(request, checkpoint_tree(service, changed))

    @router.post(f"{ONE}/publish", summary="Let every tenant read a checkpoint")
    async def publish(request: Request, caller: who, run_id: str, kind: str, name: str) -> Response:
        changed = await service.publish(caller, f"{run_id}/{kind}/{name}", public=True)
        return answer(request, checkpoint_tree(service, changed))

    @router.delete(f"{ONE}/publish", summary="Let only its owner read a checkpoint")
    async def unpublish(request: Request, caller: who, run_id: str, kind: str, name: str) -> Response:
        changed = await service.publish(caller, f"{run_id}/{kind}/{name}", public=False)
        return answer(request, checkpoint_tree(service, changed))

    _add_files(router, service)


def _add_files(router: APIRouter, service: Service) -> None:
    who = Annotated[Caller, Depends(authenticated(service))]

    @router.get(f"{ONE}/files", summary="A checkpoint's files")
    async def files(request: Request, caller: who, run_id: str, kind: str, name: str) -> Response:
        found = await service.files(caller, f"{run_id}/{kind}/{name}")
        return answer(request, {"files": [{"name": file, "bytes": size} for file, size in found]})

    @router.get(f"{ONE}/files/{{file:path}}", summary="One of a checkpoint's files", response_class=StreamingResponse)
    async def file(caller: who, run_id: str, kind: str, name: str, file: str) -> StreamingResponse:
        pieces = await begun(service.file(caller, f"{run_id}/{kind}/{name}", file))
        return StreamingResponse(pieces, media_type="application/octet-stream")

    @router.get(f"{ONE}/archive", summary="All of a checkpoint's files, as a tar", response_class=StreamingResponse)
    async def archive(caller: who, run_id: str, kind: str, name: str) -> StreamingResponse:
        pieces = await begun(service.archive(caller, f"{run_id}/{kind}/{name}"))
        headers = {"Content-Disposition": f'attachment; filename="{name}.tar"'}
        return StreamingResponse(pieces, media_type="application/x-tar", headers=headers)


async def begun(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same pieces, of which the first is here: what cannot be read is refused before an answer is begun."""
    first = await anext(pieces, b"")

    async def all_of_them() -> AsyncIterator[bytes]:
        yield first
        async for piece in pieces:
            yield piece

    return all_of_them()
