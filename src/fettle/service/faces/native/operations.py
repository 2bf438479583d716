"""Operations of runs, by number or by verb, and the promises that are given for them."""

from contextlib import suppress
from functools import lru_cache
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, from_json, to_json

from fettle.broker import Promise
from fettle.calls import Call, Forward, ForwardBackward, OptimStep, Pin, Restore, Save
from fettle.config import AdamW, LossConfig
from fettle.config.document import Document
from fettle.config.explain import sentences
from fettle.engine.base import SampleRequest
from fettle.errors import ConfigError, DataError, FettleError, NotFoundError, did_you_mean
from fettle.frames import Tree
from fettle.losses import LOSSES
from fettle.service.auth import authenticated
from fettle.service.callers import Caller
from fettle.service.core import Service
from fettle.service.entries import CheckpointKind
from fettle.service.faces.native.answered import Answered
from fettle.service.faces.native.bodies import (
    Acknowledgements,
    Batch,
    LoadState,
    Operation,
    SamplerOfRun,
    SampleRun,
    SaveState,
    Step,
)
from fettle.service.faces.native.texts import all_tokens
from fettle.service.said import Wait, described, said
from fettle.service.wire import answer

_LOSS: TypeAdapter[LossConfig] = TypeAdapter(LossConfig)

DATUM = {"tokens": [5, 9, 41, 7], "loss_mask": [0, 0, 1, 1]}
BATCH = {"data": [DATUM], "loss": {"type": "causal_lm"}}
COLUMNS = {"input_ids": [[5, 9, 41, 7]], "attention_mask": [[1, 1, 1, 1]]}
DOCUMENTED = {"batch_data": COLUMNS, "loss_fn": "causal_lm", "loss_kwargs": {}}


def add_operations(router: APIRouter, service: Service, answered: Answered) -> None:
    """The routes of operations and promises."""
    _add_door(router, service, answered)
    _add_training(router, service, answered)
    _add_state(router, service, answered)
    _add_sampling(router, service, answered)
    _add_futures(router, service, answered)


def _add_door(router: APIRouter, service: Service, answered: Answered) -> None:
    who = Annotated[Caller, Depends(authenticated(service))]
    step = {"incarnation": 0, "seq": 0, "call": {"type": "optim_step", "optimizer": {"learning_rate": 1e-4}}}

    @router.post(
        "/runs/{run_id}/operations",
        summary="Any operation, by number",
        status_code=202,
        openapi_extra=described(Operation, step=step),
    )
    async def operation(request: Request, caller: who, run_id: str, wait: Wait = 0.0) -> Response:
        body = await said(request, Operation)
        service.run(caller, run_id)
        promise = await _numbered(service, caller, run_id, body)
        return await answered.promised(request, caller, promise, wait)


async def _numbered(service: Service, caller: Caller, run_id: str, body: Operation) -> Promise:
    call: Any = body.call  # which reading the body has made of what was said
    if isinstance(call, Save):
        kind: CheckpointKind = "weights" if call.optimizer else "sampler_weights"
        return await service.save(caller, run_id, body.incarnation, body.seq, kind=kind, name=call.name)
    if isinstance(call, Restore):
        return await service.restore(
            caller, run_id, body.incarnation, body.seq, call.checkpoint, optimizer=call.optimizer
        )
    return service.submit(caller, run_id, body.incarnation, body.seq, call)


def _add_training(router: APIRouter, service: Service, answered: Answered) -> None:
    who = Annotated[Caller, Depends(authenticated(service))]

    @router.post(
        "/runs/{run_id}/forward_backward",
        summary="Add the gradient of a loss over a batch",
        status_code=202,
        openapi_extra=described(Batch, data=BATCH, documented=DOCUMENTED),
    )
    async def forward_backward(request: Request, caller: who, run_id: str, wait: Wait = 0.0) -> Response:
        body, run = await said(request, Batch), service.run(caller, run_id)
        if body.loss_fn is not None:
            promise = await answered.documented.promised(service, caller, run, body)
        else:
            promise = _submitted(service, caller, run_id, body, ForwardBackward(body.data, _loss(body)))
        return await answered.promised(request, caller, promise, wait)

    @router.post(
        "/runs/{run_id}/forward",
        summary="A loss and its log-probabilities, with no gradient",
        status_code=202,
        openapi_extra=described(Batch, data=BATCH),
    )
    async def forward(request: Request, caller: who, run_id: str, wait: Wait = 0.0) -> Response:
        body = await said(request, Batch)
        promise = _submitted(service, caller, run_id, body, Forward(body.data, _loss(body)))
        return await answered.promised(request, caller, promise, wait)

    @router.post(
        "/runs/{run_id}/optim_step",
        summary="Apply the gradients that have added up",
        status_code=202,
        openapi_extra=described(Step, adam={"learning_rate": 1e-4}),
    )
    async def optim_step(request: Request, caller: who, run_id: str, wait: Wait = 0.0) -> Response:
        body = await said(request, Step)
        optimizer = body.optimizer or AdamW()
        if body.learning_rate is not None:
            optimizer = optimizer.model_copy(update={"learning_rate": body.learning_rate})
        promise = _submitted(service, caller, run_id, body, OptimStep(optimizer, empty=body.empty))
        return await answered.promised(request, caller, promise, wait)


def _add_state(router: APIRouter, service: Service, answered: Answered) -> None:
    who = Annotated[Caller, Depends(authenticated(service))]

    @router.post(
        "/runs/{run_id}/save_state",
        summary="Save a checkpoint",
        status_code=202,
        openapi_extra=described(SaveState, named={"name": "step-1"}),
    )
    async def save_state(request: Request, caller: who, run_id: str, wait: Wait = 0.0) -> Response:
        body = await said(request, SaveState)
        promise = await service.save(
            caller,
            run_id,
            body.incarnation,
            body.seq,
            kind="weights" if body.optimizer else "sampler_weights",
            name=body.name,
            ttl_seconds=body.ttl_seconds,
            overwrite=body.overwrite,
            metadata=body.metadata,
        )
        return await answered.promised(request, caller, promise, wait)

    @router.post(
        "/runs/{run_id}/load_state",
        summary="Take up a checkpoint in place",
        status_code=202,
        openapi_extra=described(LoadState, own={"checkpoint": "run-1/weights/step-1"}),
    )
    async def load_state(request: Request, caller: who, run_id: str, wait: Wait = 0.0) -> Response:
        body = await said(request, LoadState)
        promise = await service.restore(
            caller, run_id, body.incarnation, body.seq, body.checkpoint, optimizer=body.optimizer
        )
        return await answered.promised(request, caller, promise, wait)


def _add_sampling(router: APIRouter, service: Service, answered: Answered) -> None:
    who = Annotated[Caller, Depends(authenticated(service))]

    @router.post(
        "/runs/{run_id}/sampler",
        summary="Keep a run's weights to be sampled; the promise's id is the sampler's",
        status_code=202,
        openapi_extra=described(SamplerOfRun, now={}),
    )
    async def sampler(request: Request, caller: who, run_id: str, wait: Wait = 0.0) -> Response:
        promise = _submitted(service, caller, run_id, await said(request, SamplerOfRun), Pin())
        return await answered.promised(request, caller, promise, wait)

    @router.post(
        "/runs/{run_id}/sample",
        summary="Draw from a run's weights as they are now",
        status_code=202,
        openapi_extra=described(SampleRun, greedy={"prompts": ["one two"], "max_tokens": 8, "temperature": 0}),
    )
    async def sample(request: Request, caller: who, run_id: str, wait: Wait = 0.0) -> Response:
        body = await said(request, SampleRun)
        model = service.models.named(service.run(caller, run_id).model)
        given = {name: getattr(body, name) for name in ("max_tokens", "temperature", "top_p")}
        params = body.params.model_copy(update={name: v for name, v in given.items() if v is not None})
        requests = [SampleRequest(prompt, body.n, params) for prompt in await all_tokens(model, body.prompts)]
        pin = _submitted(service, caller, run_id, body, Pin())
        try:
            promise = service.draw(caller, f"sample/{pin.id}", pin.id, requests)
        except FettleError:
            if body.seq is None:  # Who has given it a number may ask again for it.
                service.broker.release(pin.id)
            raise
        return await answered.promised(request, caller, promise, wait, told=pin.id)


def _add_futures(router: APIRouter, service: Service, answered: Answered) -> None:
    who = Annotated[Caller, Depends(authenticated(service))]

    @router.post("/futures/{id:path}/acknowledge", summary="Say that an answer need not be kept any longer")
    async def acknowledge(request: Request, caller: who, id: str) -> Response:
        answered.found(caller, id)[0].acknowledge()
        return answer(request, {"acknowledged": True})

    @router.post(
        "/acknowledgements",
        summary="Say the same of many answers",
        openapi_extra=described(Acknowledgements, two={"ids": ["run-1.0.0", "run-1.0.1"]}),
    )
    async def acknowledged(request: Request, caller: who) -> Response:
        found = 0
        for id in (await said(request, Acknowledgements)).ids:
            with suppress(NotFoundError):  # it has grown old meanwhile
                answered.found(caller, id)[0].acknowledge()
                found += 1
        return answer(request, {"acknowledged": found})

    @router.get("/futures/{id:path}", summary="What an operation or a draw came to")
    async def future(request: Request, caller: who, id: str, wait: Wait = 0.0) -> Response:
        return await answered.waited(request, caller, id, wait)

    @router.delete("/futures/{id:path}", summary="Cancel what has not begun, or stop what is being drawn")
    async def cancel(request: Request, caller: who, id: str) -> Response:
        promise = answered.found(caller, id)[0]
        if cancelled := promise.cancel():
            await promise.durable()  # or it would be carried out after the power was lost
        return answer(request, {"cancelled": cancelled})


def _submitted(
    service: Service, caller: Caller, run_id: str, body: Batch | Step | LoadState | SamplerOfRun | SampleRun, call: Call
) -> Promise:
    return service.submit(caller, run_id, body.incarnation, body.seq, call)


def _loss(body: Batch) -> LossConfig:
    """The loss that a batch is for.

    Raises:
        ConfigError: there is none of that name, or it has no such setting.
    """
    given: Tree = body.loss
    if given is None or body.data is None:
        raise DataError("a batch needs data and loss, or batch_data and loss_fn")
    try:
        return _loss_of(to_json(given, inf_nan_mode="constants"))
    except PydanticSerializationError as error:
        raise ConfigError(f"loss cannot be read ({error}): send names and numbers") from error


@lru_cache(maxsize=256)
def _loss_of(said: bytes) -> LossConfig:
    """A program trains with a few losses, and says them with every batch."""
    given = from_json(said)
    name = given.get("type")
    if not isinstance(name, str) or name not in LOSSES:
        raise ConfigError(f"no loss is named {name!r}: use {', '.join(LOSSES)}{did_you_mean(str(name), LOSSES)}")
    try:
        return _LOSS.validate_python(given)
    except ValidationError as error:
        raise ConfigError("; ".join(sentences(error, LossConfig, Document(given, {(): "loss"})))) from error
