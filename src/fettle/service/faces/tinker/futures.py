"""Answers of what was taken in: one at a time, or those of a sampling client together."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from fettle.broker import Promise
from fettle.errors import DataError, FettleError, NotFoundError
from fettle.service.callers import Caller
from fettle.service.faces.tinker import answers, bodies, ids
from fettle.service.faces.tinker.batches import widths_read
from fettle.service.faces.tinker.face import Face, Who, add
from fettle.service.faces.tinker.refusals import failed
from fettle.service.faces.tinker.training import PROTOBUF
from fettle.service.wire import LARGE
from fettle.types import ForwardResult

HOLD_S = 30.0
"""How long an answer that is not there is waited for: clients give up after 45 s at the earliest."""


class Futures:
    """The routes of answers."""

    def __init__(self, face: Face) -> None:
        self._face = face
        self._service = face.service

    def add_to(self, router: APIRouter) -> None:
        """Put them on a router."""
        add(router, "POST", "/retrieve_future", self.retrieve)
        add(router, "POST", "/retrieve_futures", self.poll)
        add(router, "POST", "/cancel_future", self.cancel)

    async def retrieve(self, who: Who, request: Request, body: bodies.RequestOnly) -> Response:
        """The answer; 408 where it takes longer than a request may, 410 where it is not known."""
        try:
            promise = self._promise(who, body.request_id)
        except NotFoundError as error:
            return JSONResponse({"detail": error.message}, 410)
        try:
            async with asyncio.timeout(HOLD_S):
                return await self._answer(request, promise, body.request_id)
        except TimeoutError:
            again = {"type": "try_again", "request_id": body.request_id, "queue_state": "active"}
            return JSONResponse(again, 408)
        except FettleError as error:
            if promise.withheld is not None:  # it may have succeeded: the client asks again
                raise
            return JSONResponse(failed(error))

    async def poll(self, who: Who, body: bodies.RetrieveFutures) -> JSONResponse:
        """What came to an end since a cursor. A sampler that is not known has nothing to tell, and is no error."""
        sampler, clone = body.target.sampling_session_id, body.target.cloned_sampler_id
        for request in body.retrieved_request_ids:
            self._let_go(who, request)
        timeout = HOLD_S if body.timeout is None else min(body.timeout, HOLD_S)
        try:
            channel = self._face.channel(who, sampler, clone)
        except NotFoundError:
            await asyncio.sleep(timeout)
            return JSONResponse({"completions": [], "cursor": body.prev_cursor})
        completions, cursor = await channel.since(body.prev_cursor, timeout)
        return JSONResponse({"completions": completions, "cursor": cursor})

    async def cancel(self, who: Who, body: bodies.RequestOnly) -> Response:
        """Stop a sample; what is done, or not known, needs no stopping."""
        try:
            promise = self._promise(who, body.request_id)
        except NotFoundError:
            return Response(status_code=204)
        if promise.cancel():
            await promise.durable()
        return Response(status_code=204)

    def _promise(self, who: Caller, request: str) -> Promise:
        if ids.is_draw(request):
            return self._face.sample(who, request)
        return self._service.promise(who, ids.read_request(request)[0])

    async def _answer(self, request: Request, promise: Promise, id: str) -> Response:
        result = await promise.result()
        await promise.durable()
        protobuf = PROTOBUF in request.headers.get("accept", "")
        _, said = ids.read_request(id)
        if promise.kind == "draw":
            return await self._drawn(id, said, result, protobuf=protobuf)
        if promise.kind in ("forward", "forward_backward"):
            told = partial(_forward, result, widths_read(said, len(result.logprobs)), protobuf=protobuf)
            return await asyncio.to_thread(told) if promise.nbytes >= LARGE else told()
        return JSONResponse(_TOLD.get(promise.kind, _nothing)(promise, said, result))

    async def _drawn(self, id: str, said: str, result: Any, *, protobuf: bool) -> Response:
        asked, reading = answers.Asked(), None
        if said:
            extra = self._face.samples.extra(id)
            if extra is None:
                # What was read of a prompt is in no journal: the client sends the whole request again.
                return JSONResponse({"detail": f"what was read for {id} is no longer kept: send it again"}, 410)
            asked, reading = extra.asked, await extra.read()
        if protobuf:
            return Response(answers.sample_output(result, reading, asked), media_type=PROTOBUF)
        return JSONResponse(answers.sample_json(result, reading, asked))

    def _let_go(self, who: Caller, request: str) -> None:
        try:
            self._promise(who, request).acknowledge()
        except NotFoundError:
            return
        self._face.samples.drop(request)


def _forward(result: ForwardResult, widths: Sequence[int], *, protobuf: bool) -> Response:
    if protobuf:
        return Response(answers.forward_output(result, widths), media_type=PROTOBUF)
    return JSONResponse(answers.forward_json(result, widths))


def _saved(promise: Promise, _said: str, result: Any) -> dict[str, Any]:
    """A checkpoint's folder ends with its id."""
    kind, folder = result.path.split("/")[-2:]
    path = ids.path_of(f"{promise.policy}/{kind}/{folder.partition('@')[0]}")
    return {"type": _SAVES[path.split("/")[-2]], "path": path}


def _pinned(promise: Promise, said: str, _result: Any) -> dict[str, Any]:
    if not said.isdecimal():
        raise DataError(f"{promise.id} was asked for without the number of its sampler: send the id as it was given")
    sampler = ids.sampler_id(ids.session_of(promise.policy), int(said))
    return {"type": "save_weights_for_sampler", "sampling_session_id": sampler}


def _nothing(promise: Promise, _said: str, _result: Any) -> dict[str, Any]:
    return {"type": promise.kind}


_SAVES = {
    "weights": "save_weights",
    "sampler_weights": "save_weights_for_sampler",
    "external_weights": "save_weights_external",
}

_TOLD: Mapping[str, Callable[[Promise, str, Any], dict[str, Any]]] = MappingProxyType(
    {
        "create": lambda promise, _, __: {"type": "create_model", "model_id": promise.policy},
        "load": lambda promise, _, __: {"type": "load_weights", "model_id": promise.policy},
        "restore": lambda promise, _, __: {"type": "load_weights", "model_id": promise.policy},
        "optim_step": lambda _, __, result: answers.optim_json(result),
        "save": _saved,
        "pin": _pinned,
    }
)
"""By the kind of the operation."""
