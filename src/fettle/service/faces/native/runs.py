"""Runs: begun, looked at, paused, resumed, completed; and what is told of them."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response

from fettle.config import PolicySpec
from fettle.errors import ConfigError, DataError
from fettle.frames import Tree, plain
from fettle.service.auth import authenticated
from fettle.service.callers import Caller
from fettle.service.core import Service
from fettle.service.entries import RunState
from fettle.service.faces.native.answered import settled
from fettle.service.faces.native.bodies import Episodes, NewRun, Rows
from fettle.service.faces.native.shown import run_tree
from fettle.service.said import Limit, Offset, Wait, described, said
from fettle.service.told import EPISODES, METRICS
from fettle.service.wire import answer

MOST_ROWS = 10_000
"""Of one answer, which ends sooner where they are long."""
MostRows = Annotated[int, Query(ge=1, le=MOST_ROWS)]
AfterStep = Annotated[int, Query(ge=-1, description="Only what belongs to later steps.")]
MOST_SAID = 1e300
"""The largest number that a client may tell of."""

NEW_RUN = {"base_model": "tiny", "lora": {"rank": 8}, "name": "first"}

MOVES: dict[str, RunState] = {"pause": "paused", "resume": "active", "complete": "completed"}
"""Words of the address, and the states that they lead to."""


def add_runs(router: APIRouter, service: Service) -> None:
    """The routes of runs."""
    who = Annotated[Caller, Depends(authenticated(service))]

    @router.post("/runs", summary="Begin a run", status_code=201, openapi_extra=described(NewRun, adapter=NEW_RUN))
    async def create(request: Request, caller: who, wait: Wait = 0.0) -> Response:
        body = await said(request, NewRun)
        promise = await _begun(service, caller, body)
        await promise.durable()
        if wait:
            await settled(promise, wait)
        run = service.run(caller, promise.policy)
        return answer(request, {**run_tree(service, run), "promise": promise.id}, 201)

    @router.get("/runs", summary="The caller's runs, newest first")
    async def runs(request: Request, caller: who, limit: Limit = 100, offset: Offset = 0) -> Response:
        found, total = await service.runs(caller, limit=limit, offset=offset)
        return answer(request, {"runs": [run_tree(service, run) for run in found], "total": total})

    @router.get("/runs/{run_id}", summary="One run")
    async def run(request: Request, caller: who, run_id: str) -> Response:
        return answer(request, run_tree(service, service.run(caller, run_id)))

    @router.post("/runs/{run_id}/attach", summary="Become a run's holder; older ones are shut out")
    async def attach(request: Request, caller: who, run_id: str) -> Response:
        return answer(request, {"incarnation": await service.attach(caller, run_id)})

    for move, state in MOVES.items():
        _add_move(router, service, move, state)
    _add_series(router, service)


def _add_move(router: APIRouter, service: Service, move: str, state: RunState) -> None:
    @router.post(f"/runs/{{run_id}}/{move}", summary=f"{move.capitalize()} a run", name=move)
    async def moved(
        request: Request, caller: Annotated[Caller, Depends(authenticated(service))], run_id: str
    ) -> Response:
        return answer(request, run_tree(service, await service.set_state(caller, run_id, state)))


def _add_series(router: APIRouter, service: Service) -> None:
    who = Annotated[Caller, Depends(authenticated(service))]
    _add_page(router, service, "metrics", METRICS, "A run's metrics, a row a step", rows="rows")
    _add_page(router, service, "episodes", EPISODES, "Episodes that were told of", rows="episodes")

    rows_example = {"rows": [{"step": 1, "reward/mean": 0.5}]}

    @router.post(
        "/runs/{run_id}/metrics",
        summary="Add a client's own metrics",
        status_code=201,
        openapi_extra=described(Rows, reward=rows_example),
    )
    async def add_metrics(request: Request, caller: who, run_id: str) -> Response:
        run, body = service.run(caller, run_id), await said(request, Rows)
        await service.told.add_metrics(run.id, [_with_step("rows", i, row) for i, row in enumerate(body.rows)])
        return answer(request, {"added": len(body.rows)}, 201)

    episode = {"step": 1, "messages": [{"role": "user", "content": "1 + 1 ="}], "reward": 1.0}

    @router.post(
        "/runs/{run_id}/episodes",
        summary="Tell of episodes, for the console",
        status_code=201,
        openapi_extra=described(Episodes, one={"episodes": [episode]}),
    )
    async def add_episodes(request: Request, caller: who, run_id: str) -> Response:
        run, body = service.run(caller, run_id), await said(request, Episodes)
        rows = [_with_step("episodes", i, row) for i, row in enumerate(body.episodes)]
        await service.told.add_episodes(run.id, rows)
        return answer(request, {"added": len(rows)}, 201)


def _add_page(router: APIRouter, service: Service, name: str, series: str, summary: str, *, rows: str) -> None:
    @router.get(f"/runs/{{run_id}}/{name}", summary=summary, name=name)
    async def page(
        request: Request,
        caller: Annotated[Caller, Depends(authenticated(service))],
        run_id: str,
        after: AfterStep = -1,
        limit: MostRows = MOST_ROWS,
        offset: Offset = 0,
    ) -> Response:
        run = service.run(caller, run_id)
        found, more = await service.told.page(run.id, series, after=after, skip=offset, most=limit)
        return await asyncio.to_thread(answer, request, {rows: found, "more": more})


async def _begun(service: Service, caller: Caller, body: NewRun) -> Any:
    if (body.base_model is None) == (body.checkpoint is None):
        raise ConfigError("a run begins from one of base_model and checkpoint: give one of them")
    told: dict[str, Any] = {
        "run_id": body.id,
        "name": body.name,
        "metadata": body.metadata,
        "session": body.session,
    }
    if body.checkpoint is not None:
        return await service.load_run(caller, body.checkpoint, optimizer=body.optimizer, **told)
    if body.quantization is not None and body.lora is None:
        raise ConfigError(f"quantization is {body.quantization}, and whole weights are trained: set lora as well")
    spec = PolicySpec(
        model=str(body.base_model),
        lora=body.lora,
        precision=body.precision,
        quantization=body.quantization,
        head=body.head,
        seed=body.seed,
    )
    return await service.create_run(caller, spec, **told)


def _with_step(name: str, index: int, row: dict[str, Tree]) -> dict[str, Tree]:
    step = row.get("step")
    if isinstance(step, bool) or not isinstance(step, int):
        raise DataError(f"{name}[{index}].step must be a whole number")
    for key, value in row.items():
        if isinstance(value, int | float) and not -MOST_SAID <= value <= MOST_SAID:
            raise DataError(f"{name}[{index}].{key[:80]} is {_shortly(value)}, which no curve can show: leave it out")
    return {name: plain(value) for name, value in row.items()}


def _shortly(value: float) -> str:
    return f"{value}" if isinstance(value, float) else f"a number of {value.bit_length()} bits"
