"""Promises on their way out: the result where it is there in time, and else where to ask for it."""

import asyncio
from contextlib import suppress

import numpy as np
from fastapi import Request, Response

from fettle.broker import Promise
from fettle.broker.promises import open_id
from fettle.errors import FettleError, NotFoundError
from fettle.frames import Tree
from fettle.service.callers import Caller
from fettle.service.core import Service
from fettle.service.faces.native.documented import Documented
from fettle.service.faces.native.shown import promise_tree
from fettle.service.wire import LARGE, answer, wants_frames
from fettle.types import Completion

MARK = "~"
"""Parts a promise's id from that of the sampler whose tokens people want to read."""


class Answered:
    """Answers with promises."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.documented = Documented()

    async def promised(
        self, request: Request, caller: Caller, promise: Promise, wait: float, told: str = ""
    ) -> Response:
        """The acknowledgement of a promise, once it is in the journal, or its result; ``told`` names its sampler."""
        await promise.durable()
        id = f"{promise.id}{MARK}{told}" if told else promise.id
        if wait:
            return await self.waited(request, caller, id, wait)
        tree: dict[str, Tree] = {"id": id, "kind": promise.kind, "status": "pending"}
        if promise.policy and promise.id != open_id(promise.policy):
            tree["seq"] = int(promise.id.rpartition(".")[2])
        return answer(request, tree, 202)

    async def waited(self, request: Request, caller: Caller, id: str, wait: float) -> Response:
        """How a promise stands, at the latest after ``wait`` seconds."""
        promise, sampler = self.found(caller, id)
        if wait and not promise.done:
            await settled(promise, wait)
        if promise.withheld is not None:
            raise promise.withheld
        tree = promise_tree(self._service, promise)
        if tree["status"] == "completed":
            tree["result"] = self.documented.result(promise) or tree["result"]
            if sampler and not wants_frames(request) and isinstance(promise.answer, list):
                tree["result"] |= self._readable(caller, sampler, promise.answer)
        status = 202 if tree["status"] == "pending" else 200
        if promise.done and promise.nbytes >= LARGE:
            return await asyncio.to_thread(answer, request, tree, status)
        return answer(request, tree, status)

    def found(self, caller: Caller, id: str) -> tuple[Promise, str]:
        """The promise of an id, and the sampler that it names besides."""
        id, _, sampler = id.partition(MARK)
        return self._service.promise(caller, id), sampler

    def _readable(self, caller: Caller, sampler: str, completions: list[Completion]) -> dict[str, Tree]:
        """Completions for people: a text each, and a list of tokens each."""
        try:
            model = self._service.models.named(self._service.sampler(caller, sampler).model)
        except NotFoundError:  # the sampler was let go meanwhile
            return {}
        return {
            "outputs": [model.text_of(each.tokens, skip_special_tokens=True) for each in completions],
            "token_ids": [each.tokens for each in completions],
            "token_logprobs": [np.asarray(each.logprobs) for each in completions],
        }


async def settled(promise: Promise, wait: float) -> None:
    """Return once a promise is done, whatever it came to, or after ``wait`` seconds."""
    with suppress(FettleError):
        await promise.result(wait)
