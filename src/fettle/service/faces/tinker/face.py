"""What the parts of the Tinker face share."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse

from fettle.broker import Promise
from fettle.errors import NotFoundError, StateError
from fettle.service.callers import Caller
from fettle.service.core import Service
from fettle.service.entries import Run
from fettle.service.faces.tinker import ids
from fettle.service.faces.tinker.ids import request_id
from fettle.service.faces.tinker.numbering import Numbering
from fettle.service.faces.tinker.samples import CLONE, Channel, Samples
from fettle.service.ids import draw_key

MISSED = 4096
"""So many numbers in a row that no sample has end the search for a clone's samples."""

NAMED_AS = "tinker.base_model"
"""Where a run's metadata keep the name under which its client knows the base model."""


@dataclass(frozen=True, slots=True)
class Face:
    """The service, and what this face remembers beside it."""

    service: Service
    numbering: Numbering
    samples: Samples
    since: datetime
    """When this process began."""

    def run(self, caller: Caller, model: str) -> Run:
        """The run behind a model that has not come to its end; asking is a sign of life of its session.

        Raises:
            NotFoundError: there is none.
        """
        run = self.service.run(caller, model)
        mend = "begin another, from one of its checkpoints"
        if run.state in ("completed", "failed"):
            raise NotFoundError(f"the model {model!r} is {run.state}{': ' if run.reason else ''}{run.reason}; {mend}")
        try:
            self.service.heartbeat(caller, run.session)
        except StateError as error:
            raise NotFoundError(f"the session of the model {model!r} was finished; {mend}") from error
        return run

    def sample(self, caller: Caller, request: str) -> Promise:
        """What was drawn, or is being drawn, for a sample request.

        Raises:
            NotFoundError: there was none, or its answer is no longer kept.
        """
        return self.service.promise(caller, draw_key(caller.tenant, request))

    def channel(self, caller: Caller, sampler: str, clone: int) -> Channel:
        """The completions of one clone of a sampler, those from before this process began among them.

        Raises:
            NotFoundError: the caller has no such sampler.
            BusyError: there are too many clones.
        """
        found = self.samples.channel(caller.tenant, sampler, clone)
        if found is not None:
            return found
        was_before = self.service.sampler(caller, sampler).created_at < self.since
        channel = self.samples.new_channel(caller.tenant, sampler, clone)
        if was_before:
            missed, seq = 0, clone * CLONE
            while missed < MISSED:
                told = [key for key in ids.draw_keys(sampler, seq) if self._watched(caller, channel, key)]
                missed = 0 if told else missed + 1
                seq += 1
        return channel

    def _watched(self, caller: Caller, channel: Channel, key: str) -> bool:
        try:
            channel.watch(key, self.sample(caller, key).result)
        except NotFoundError:
            return False
        return True

    def named(self, run: Run) -> str:
        """A run's base model as its client calls it."""
        return run.metadata.get(NAMED_AS, run.model)


async def _caller(request: Request) -> Caller:  # or the framework asks a thread
    caller: Caller = request.state.caller
    return caller


Who = Annotated[Caller, Depends(_caller)]
"""Whoever sent the request, as the router has found out."""


def add(router: APIRouter, method: str, path: str, endpoint: Callable[..., Any]) -> None:
    """One route, whose answers are sent as they are."""
    router.add_api_route(path, endpoint, methods=[method], response_model=None)


async def promised(promise: Promise, said: str = "") -> JSONResponse:
    """The acknowledgement of an operation, once it is in the journal."""
    await promise.durable()
    return JSONResponse({"request_id": request_id(promise.id, said), "model_id": promise.policy})
