"""Runs, checkpoints and sessions, to be listed, shared and deleted."""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from fastapi.responses import JSONResponse

from fettle.errors import DataError, NotFoundError
from fettle.service.callers import Caller
from fettle.service.entries import CheckpointEntry, Run
from fettle.service.faces.tinker import bodies, ids
from fettle.service.faces.tinker.face import NAMED_AS, Face, Who, add

MOST = 1000
"""Of anything, in one answer."""

Limit = Annotated[int, Query(ge=1, le=MOST)]
Offset = Annotated[int, Query(ge=0)]

TTL_S = (3600, 10 * 365 * 86400)
"""The least and the longest time for which a checkpoint may be said to be kept."""

CHECKPOINT = "/training_runs/{run}/checkpoints/{kind}/{name}"


class Rest:
    """The routes that manage."""

    def __init__(self, face: Face) -> None:
        self._face = face
        self._service = face.service

    def add_to(self, router: APIRouter) -> None:
        """Put them on a router."""
        add(router, "GET", "/training_runs", self.runs)
        add(router, "GET", "/training_runs/{run}", self.run)
        add(router, "GET", "/training_runs/{run}/checkpoints", self.checkpoints_of)
        add(router, "GET", "/checkpoints", self.checkpoints)
        add(router, "DELETE", CHECKPOINT, self.delete)
        add(router, "POST", CHECKPOINT + "/publish", self.publish)
        add(router, "DELETE", CHECKPOINT + "/publish", self.unpublish)
        add(router, "PUT", CHECKPOINT + "/ttl", self.ttl)
        add(router, "POST", "/weights_info", self.weights_info)
        add(router, "GET", "/sessions", self.sessions)
        add(router, "GET", "/sessions/{session}", self.session)

    async def runs(self, who: Who, limit: Limit = 20, offset: Offset = 0) -> JSONResponse:
        """The caller's runs, newest first."""
        found, total = await self._service.runs(who, limit=limit, offset=offset)
        told = [await self._run(who, run) for run in found]
        return JSONResponse({"training_runs": told, "cursor": _cursor(limit, offset, total)})

    async def run(self, who: Who, run: str) -> JSONResponse:
        """One run."""
        return JSONResponse(await self._run(who, self._service.run(who, run)))

    async def checkpoints_of(self, who: Who, run: str) -> JSONResponse:
        """The checkpoints of one run."""
        self._service.run(who, run)
        return JSONResponse({"checkpoints": await self._all_of(who, run)})

    async def checkpoints(self, who: Who, limit: Limit = 100, offset: Offset = 0) -> JSONResponse:
        """The caller's checkpoints, newest first."""
        found, total = await self._service.checkpoints(who, limit=limit, offset=offset)
        told = [_checkpoint(entry) for entry in found]
        return JSONResponse({"checkpoints": told, "cursor": _cursor(limit, offset, total)})

    async def delete(self, who: Who, run: str, kind: str, name: str) -> Response:
        """Delete a checkpoint; who draws from it goes on."""
        await self._service.delete_checkpoint(who, ids.own_id(run, kind, name))
        return Response(status_code=204)

    async def publish(self, who: Who, run: str, kind: str, name: str) -> Response:
        """Let every tenant read a checkpoint."""
        await self._service.publish(who, ids.own_id(run, kind, name), public=True)
        return Response(status_code=204)

    async def unpublish(self, who: Who, run: str, kind: str, name: str) -> Response:
        """Let only its owner read it."""
        await self._service.publish(who, ids.own_id(run, kind, name), public=False)
        return Response(status_code=204)

    async def ttl(self, who: Who, run: str, kind: str, name: str, body: bodies.Ttl) -> Response:
        """Say how long from now a checkpoint is kept; null keeps it."""
        least, longest = TTL_S
        if body.ttl_seconds is not None and not least <= body.ttl_seconds <= longest:
            raise DataError(f"ttl_seconds is {body.ttl_seconds}: give {least} to {longest}, or null")
        await self._service.set_ttl(who, ids.own_id(run, kind, name), body.ttl_seconds)
        return Response(status_code=204)

    async def weights_info(self, who: Who, body: bodies.TinkerPath) -> JSONResponse:
        """What a checkpoint was made of."""
        entry = self._service.checkpoint(who, ids.checkpoint_id(body.tinker_path))
        lora = entry.spec.lora
        targets = lora.targets if lora else ()
        both = targets == ("all-linear",)
        return JSONResponse(
            {
                "base_model": entry.metadata.get(NAMED_AS, entry.model),
                "is_lora": lora is not None,
                "lora_rank": lora.rank if lora else None,
                "train_unembed": False,
                "train_mlp": both or "up_proj" in targets,
                "train_attn": both or "q_proj" in targets,
                "optimizer_config": {"type": "adamw"},
            }
        )

    async def sessions(self, who: Who, limit: Limit = 20, offset: Offset = 0) -> JSONResponse:
        """The caller's sessions, newest first."""
        found = self._service.sessions.of(who.tenant)[offset : offset + limit]
        return JSONResponse({"sessions": [session.id for session in found]})

    async def session(self, who: Who, session: str) -> JSONResponse:
        """What a session has made."""
        found = self._service.sessions.session(who, session)
        runs, _ = await self._service.runs(who, limit=MOST)
        made = [run.id for run in runs if run.session == session]
        samplers = [id for id in (ids.sampler_id(session, number) for number in range(MOST)) if self._is_there(who, id)]
        return JSONResponse({"training_run_ids": made, "sampler_ids": samplers, "user_metadata": dict(found.metadata)})

    def _is_there(self, who: Caller, sampler: str) -> bool:
        try:
            return bool(self._service.sampler(who, sampler))
        except NotFoundError:
            return False

    async def _run(self, who: Caller, run: Run) -> dict[str, Any]:
        saved = await self._all_of(who, run.id)
        newest = {one["checkpoint_type"]: one for one in reversed(saved)}
        return {
            "training_run_id": run.id,
            "base_model": self._face.named(run),
            "model_owner": run.tenant,
            "is_lora": run.spec.lora is not None,
            "lora_rank": run.spec.lora.rank if run.spec.lora else None,
            "corrupted": run.state == "failed",
            "last_request_time": run.changed_at.isoformat(),
            "last_checkpoint": newest.get("training"),
            "last_sampler_checkpoint": newest.get("sampler"),
            "user_metadata": _own(run.metadata),
        }

    async def _all_of(self, who: Caller, run: str) -> list[dict[str, Any]]:
        found, _ = await self._service.checkpoints(who, run_id=run, limit=MOST)
        return [_checkpoint(entry) for entry in found]


def _checkpoint(entry: CheckpointEntry) -> dict[str, Any]:
    kind = "training" if entry.kind == "weights" else "sampler"
    path = ids.path_of(entry.id)
    if "/external_weights/" in path:
        kind = "external"
    return {
        "checkpoint_id": path.removeprefix(f"{ids.SCHEME}{entry.run}/"),
        "checkpoint_type": kind,
        "time": entry.created_at.isoformat(),
        "tinker_path": path,
        "size_bytes": entry.nbytes,
        "public": entry.public,
        "user_metadata": _own(entry.metadata),
        "expires_at": entry.expires_at.isoformat() if entry.expires_at else None,
    }


def _own(metadata: Mapping[str, str]) -> dict[str, str]:
    """What the user noted, without what this face notes beside it."""
    return {name: value for name, value in metadata.items() if name != NAMED_AS}


def _cursor(limit: int, offset: int, total: int) -> dict[str, int]:
    return {"limit": limit, "offset": offset, "total_count": total}
