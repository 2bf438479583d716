"""``ModelService``: messages in, a reply out, from whatever generates."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from pydantic import ValidationError

from fettle.config import SamplingParams
from fettle.environments.remote import environment_pb2 as pb
from fettle.environments.remote import wire
from fettle.environments.remote.refusals import Refusal, failed
from fettle.environments.remote.streams import side_by_side
from fettle.errors import ContextError, DataError, FettleError
from fettle.types import Completion, Message

BATCHED = 256
"""Requests in one batch, at most."""
STREAMED = 64
"""Requests of one stream that are answered at once."""

Send = Callable[[pb.StreamGenerateResponse], Awaitable[None]]
Heard = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Generation:
    """A reply, and the tokens it was read from."""

    reply: Message
    completion: Completion


class Generator(Protocol):
    """A model that answers."""

    name: str

    async def generate(
        self, messages: tuple[Message, ...], params: SamplingParams, heard: Heard | None = None
    ) -> Generation:
        """The reply; ``heard`` is told of its text, piece by piece, from this event loop."""


class ModelService:
    """The calls. Every one of them raises ``Refusal`` where it is not answered."""

    def __init__(self, generator: Generator, *, calls: int) -> None:
        self._generator = generator
        self._most = calls
        self._calls = 0

    async def generate(self, request: pb.GenerateRequest, heard: Heard | None = None) -> pb.GenerateResponse:
        """One reply."""
        if request.model_id not in ("", self._generator.name):
            why = f"there is no model {request.model_id[:60]!r} here, only {self._generator.name}"
            raise Refusal(pb.FAULT_CODE_UNKNOWN, why)
        if self._calls >= self._most:
            raise Refusal(pb.FAULT_CODE_FULL, f"{self._calls} replies are being written: wait", retry_after=1.0)
        params = _params(request.settings)
        self._calls += 1
        try:
            found = await self._generator.generate(wire.messages_in(request.messages), params, heard)
        except (DataError, ContextError) as error:
            raise Refusal(pb.FAULT_CODE_INVALID, error.message) from error
        except FettleError as error:
            raise failed("the model", error) from error
        finally:
            self._calls -= 1
        return self._response(found, with_logprobs=request.return_log_probs)

    async def batch_generate(self, request: pb.BatchGenerateRequest) -> pb.BatchGenerateResponse:
        """A reply for each request, drawn together."""
        if len(request.requests) > BATCHED:
            why = f"a batch has {len(request.requests)} requests, and {BATCHED} at most are taken: send several"
            raise Refusal(pb.FAULT_CODE_TOO_LARGE, why)
        return pb.BatchGenerateResponse(responses=await asyncio.gather(*map(self.generate, request.requests)))

    async def stream_generate(self, requests: AsyncIterator[pb.StreamGenerateRequest], send: Send) -> None:
        """Replies as they are written; each piece names its call."""
        await side_by_side(requests, partial(self._streamed, send), at_once=STREAMED)

    async def health_check(self, request: pb.HealthCheckRequest) -> pb.HealthCheckResponse:
        """Whether there is a model; a server without one has no such service."""
        info = {"model_id": self._generator.name, "num_calls": str(self._calls)}
        serving = pb.HealthCheckResponse.STATUS_SERVING
        return pb.HealthCheckResponse(status=serving, info=info, timestamp=int(time.time()))

    async def _streamed(self, send: Send, asked: pb.StreamGenerateRequest) -> None:
        pieces: asyncio.Queue[str | None] = asyncio.Queue()
        whole = asyncio.create_task(self.generate(asked.request, pieces.put_nowait))
        whole.add_done_callback(lambda _: pieces.put_nowait(None))
        try:
            while (piece := await pieces.get()) is not None:
                await send(pb.StreamGenerateResponse(call=asked.call, text=piece))
            await send(pb.StreamGenerateResponse(call=asked.call, whole=await whole))
        except Refusal as refused:
            await send(pb.StreamGenerateResponse(call=asked.call, fault=refused.fault))
        finally:
            whole.cancel()

    def _response(self, found: Generation, *, with_logprobs: bool) -> pb.GenerateResponse:
        response = pb.GenerateResponse(
            response=wire.message_out(found.reply),
            stop_reason=found.completion.stop_reason,
            model_id=self._generator.name,
        )
        if with_logprobs:
            response.log_probs.extend(found.completion.logprobs)
            response.tokens.extend(found.completion.tokens)
        return response


def _params(given: pb.GenerationSettings) -> SamplingParams:
    """How to draw: what is not given is as it is everywhere here.

    Raises:
        Refusal: a value makes no sense.
    """
    names = {"max_tokens": "max_new_tokens", "temperature": "temperature", "top_p": "top_p", "top_k": "top_k"}
    values = {ours: getattr(given, theirs) for ours, theirs in names.items() if given.HasField(theirs)}
    if given.HasField("seed"):
        values["seed"] = given.seed
    if given.HasField("do_sample") and not given.do_sample:
        values["temperature"] = 0.0
    try:
        return SamplingParams(**values, stop=tuple(given.stop))
    except ValidationError as error:
        first = error.errors()[0]
        where = names.get(str(first["loc"][0]), str(first["loc"][0]))
        raise Refusal(pb.FAULT_CODE_INVALID, f"settings.{where}: {first['msg']}") from error
