"""Samplers: opened, drawn from, listened to, and read."""

import asyncio
from functools import partial
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, Request, Response
from starlette.responses import StreamingResponse

from fettle.broker import Promise
from fettle.calls import Pin
from fettle.engine.base import ReadRequest, SampleRequest
from fettle.errors import DataError, LossInputError
from fettle.frames import result_tree
from fettle.service.auth import authenticated
from fettle.service.callers import Caller
from fettle.service.core import Service
from fettle.service.entries import SamplerEntry
from fettle.service.faces.native.answered import Answered
from fettle.service.faces.native.bodies import Drawing, Embed, Logprobs, NewSampler, Read, Reading, Sample, Sequences
from fettle.service.faces.native.shown import sampler_tree
from fettle.service.faces.native.streams import events
from fettle.service.faces.native.texts import all_tokens
from fettle.service.ids import chosen, new_id
from fettle.service.models import Model
from fettle.service.said import Wait, described, said
from fettle.service.wire import answer

GREEDY = {"prompt": "one two", "params": {"max_tokens": 8, "temperature": 0}}


def add_samplers(router: APIRouter, service: Service, answered: Answered) -> None:
    """The routes of samplers."""
    who = Annotated[Caller, Depends(authenticated(service))]

    @router.post(
        "/samplers",
        summary="Open a sampler",
        status_code=201,
        openapi_extra=described(NewSampler, model={"model": "tiny"}),
    )
    async def open_sampler(request: Request, caller: who) -> Response:
        body = await said(request, NewSampler)
        return answer(request, sampler_tree(await _opened(service, caller, body)), 201)

    @router.get("/samplers/{sampler_id}", summary="One sampler")
    async def sampler(request: Request, caller: who, sampler_id: str) -> Response:
        return answer(request, sampler_tree(service.sampler(caller, sampler_id)))

    @router.delete("/samplers/{sampler_id}", summary="Let a sampler go")
    async def close(request: Request, caller: who, sampler_id: str) -> Response:
        await service.close_sampler(caller, sampler_id)
        return answer(request, {"closed": sampler_id})

    _add_drawing(router, service, answered)
    _add_reading(router, service)


def _add_drawing(router: APIRouter, service: Service, answered: Answered) -> None:
    who = Annotated[Caller, Depends(authenticated(service))]

    @router.post(
        "/samplers/{sampler_id}/sample",
        summary="Draw completions",
        status_code=202,
        openapi_extra=described(Sample, greedy={"requests": [GREEDY]}),
    )
    async def sample(request: Request, caller: who, sampler_id: str, wait: Wait = 0.0) -> Response:
        body = await said(request, Sample)
        model = _model(service, caller, sampler_id)
        prompts = await all_tokens(model, [each.prompt for each in body.requests])
        asked = zip(prompts, body.requests, strict=True)
        requests = [SampleRequest(prompt, each.n, each.params) for prompt, each in asked]
        promise = service.draw(caller, body.key or new_id("key"), sampler_id, requests)
        return await answered.promised(request, caller, promise, wait, told=sampler_id)

    @router.post(
        "/samplers/{sampler_id}/stream",
        summary="Draw completions and hear every token as it is drawn, as server-sent events",
        openapi_extra=described(Drawing, greedy=GREEDY),
        response_class=StreamingResponse,
    )
    async def stream(request: Request, caller: who, sampler_id: str) -> StreamingResponse:
        body = await said(request, Drawing)
        model = _model(service, caller, sampler_id)
        [prompt] = await all_tokens(model, [body.prompt])
        asked = SampleRequest(prompt, body.n, body.params)
        draw = partial(service.draw, caller, new_id("key"), sampler_id)
        return StreamingResponse(events(draw, asked, model), media_type="text/event-stream")


def _add_reading(router: APIRouter, service: Service) -> None:
    who = Annotated[Caller, Depends(authenticated(service))]

    @router.post(
        "/samplers/{sampler_id}/logprobs",
        summary="The log-probability of each token after those before it",
        openapi_extra=described(Logprobs, one={"sequences": [[5, 9, 41]]}),
    )
    async def logprobs(request: Request, caller: who, sampler_id: str) -> Response:
        body = await said(request, Logprobs)
        entry, rows = await _rows(service, caller, sampler_id, body)
        async with service.readings.of(entry, rows) as live:
            found = await asyncio.gather(*(live.logprobs(row, temperature=body.temperature) for row in rows))
        return answer(request, {"logprobs": found})

    @router.post(
        "/samplers/{sampler_id}/score",
        summary="What the reward head says of each sequence",
        openapi_extra=described(Sequences, one={"sequences": [[5, 9, 41]]}),
    )
    async def score(request: Request, caller: who, sampler_id: str) -> Response:
        entry, rows = await _rows(service, caller, sampler_id, await said(request, Sequences))
        async with service.readings.of(entry, rows) as live:
            scores = await asyncio.gather(*map(live.score, rows))
        return answer(request, {"scores": scores})

    @router.post(
        "/samplers/{sampler_id}/embed",
        summary="The states that one layer gives each sequence",
        openapi_extra=described(Embed, one={"sequences": [[5, 9, 41]]}),
    )
    async def embed(request: Request, caller: who, sampler_id: str) -> Response:
        body = await said(request, Embed)
        entry, rows = await _rows(service, caller, sampler_id, body)
        async with service.readings.of(entry, rows) as live:
            states = partial(live.embed, layer=body.layer, pooling=body.pooling)
            embeddings = await asyncio.gather(*map(states, rows))
        return answer(request, {"embeddings": embeddings})

    @router.post(
        "/samplers/{sampler_id}/read",
        summary="What the model says at each place of each sequence",
        openapi_extra=described(Read, top={"requests": [{"tokens": [5, 9, 41], "top": 3}]}),
    )
    async def read(request: Request, caller: who, sampler_id: str) -> Response:
        body = await said(request, Read)
        entry, model = service.sampler(caller, sampler_id), _model(service, caller, sampler_id)
        rows = await all_tokens(model, [each.tokens for each in body.requests])
        asked = [_read_request(model, each, row) for each, row in zip(body.requests, rows, strict=True)]
        async with service.readings.of(entry, [each.tokens for each in asked]) as live:
            found = await asyncio.gather(*map(live.read, asked))
        return answer(request, {"readings": [result_tree(reading) for reading in found]})


async def _opened(service: Service, caller: Caller, body: NewSampler) -> SamplerEntry:
    given = [name for name in ("model", "checkpoint", "run_id", "pin") if getattr(body, name) is not None]
    if len(given) != 1:
        raise DataError("a sampler is of one thing: give one of model, checkpoint, run_id and pin")
    pin = body.pin
    if body.run_id is not None:
        promise: Promise = service.submit(caller, body.run_id, None, None, Pin())
        await promise.durable()
        await promise.result()
        pin = promise.id
    id = None if body.id is None else chosen(body.id)
    return await service.open_sampler(
        caller, model=body.model, checkpoint=body.checkpoint, pin=pin, session=body.session, sampler_id=id
    )


def _model(service: Service, caller: Caller, sampler_id: str) -> Model:
    return service.models.named(service.sampler(caller, sampler_id).model)


async def _rows(
    service: Service, caller: Caller, sampler_id: str, body: Sequences
) -> tuple[SamplerEntry, list[list[int]]]:
    entry, model = service.sampler(caller, sampler_id), _model(service, caller, sampler_id)
    return entry, await all_tokens(model, body.sequences)


def _read_request(model: Model, body: Reading, tokens: list[int]) -> ReadRequest:
    return ReadRequest(
        tokens=tokens,
        top=body.top,
        targets=None if body.targets is None else _targets(model, body.targets, len(tokens)),
        draws=body.draws,
        temperature=body.temperature,
        seed=body.seed,
    )


def _targets(model: Model, given: Any, length: int) -> Any:
    try:
        targets = np.asarray(given)
    except ValueError as error:
        raise LossInputError("targets must be rows of equally many tokens, one row a place") from error
    if targets.ndim != 2 or len(targets) != length or targets.dtype.kind not in "iu":
        raise LossInputError(f"targets have shape {list(targets.shape)}: [{length}, K] of whole numbers is needed")
    if targets.size and not (targets.min() >= -1 and targets.max() < model.vocabulary):
        raise LossInputError(f"a target is no token: ids of {model.name} are 0 to {model.vocabulary - 1}, -1 for none")
    return targets.astype(np.int32)
