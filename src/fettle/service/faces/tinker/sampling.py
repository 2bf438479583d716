"""Samplers, and what is drawn from them."""

import asyncio
import hashlib
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

from fettle.broker.samplers import BrokerSampler
from fettle.engine.base import ReadRequest, SampleRequest
from fettle.errors import ConfigError, DataError, LossInputError, NotFoundError
from fettle.service.entries import SamplerEntry
from fettle.service.faces.tinker import bodies, ids, tensors
from fettle.service.faces.tinker.answers import Asked, wanted_targets
from fettle.service.faces.tinker.batches import text_tokens
from fettle.service.faces.tinker.face import NAMED_AS, Face, Who, add
from fettle.service.faces.tinker.samples import CLONE, Extra, Part
from fettle.service.faces.tinker.settings import number_of, sampling_of
from fettle.service.models import Model
from fettle.types import PromptReading

MOST_CELLS = 1 << 22
"""Prompt tokens times tokens asked about at each, in one request."""


class Sampling:
    """The routes of samplers."""

    def __init__(self, face: Face) -> None:
        self._face = face
        self._service = face.service

    def add_to(self, router: APIRouter) -> None:
        """Put them on a router."""
        add(router, "POST", "/create_sampling_session", self.create)
        add(router, "GET", "/samplers/{sampler}", self.info)
        add(router, "POST", "/join_sampling_session", self.join)
        add(router, "POST", "/asample", self.sample)

    async def create(self, who: Who, body: bodies.CreateSamplingSession) -> JSONResponse:
        """A sampler of a base model or of a checkpoint."""
        self._service.heartbeat(who, body.session_id)
        if (body.base_model is None) == (body.model_path is None):
            raise DataError("a sampler is of base_model or of model_path: give one of the two")
        id = ids.sampler_id(body.session_id, body.sampling_session_seq_id)
        checkpoint = ids.checkpoint_id(body.model_path) if body.model_path is not None else None
        try:
            await self._service.open_sampler(
                who, model=body.base_model, checkpoint=checkpoint, session=body.session_id, sampler_id=id
            )
        except NotFoundError as error:
            if checkpoint is not None:
                raise
            raise ConfigError(error.message) from error
        return JSONResponse({"type": "create_sampling_session", "sampling_session_id": id})

    async def info(self, who: Who, sampler: str) -> JSONResponse:
        """What a sampler draws from."""
        entry = self._service.sampler(who, sampler)
        told = {"sampler_id": entry.id, "base_model": entry.model}
        if entry.checkpoint:
            checkpoint = self._service.checkpoint(who, entry.checkpoint)
            told["base_model"] = checkpoint.metadata.get(NAMED_AS, entry.model)
            told["model_path"] = ids.path_of(entry.checkpoint)
        return JSONResponse(told)

    async def join(self, who: Who, body: bodies.SamplingSessionOnly) -> JSONResponse:
        """A further client of a sampler: its requests are numbered apart from all others."""
        entry = self._service.sampler(who, body.sampling_session_id)
        counter = self._face.samples.joined(entry.id)
        return JSONResponse({"type": "join_sampling_session", "client_counter": counter})

    async def sample(self, who: Who, body: bodies.SampleBody) -> Response:
        """Take a sample in. The same request again is the same one."""
        entry = self._service.sampler(who, body.sampling_session_id)
        model = self._service.models.named(entry.model)
        prompt = _prompt(body, model)
        asked = _asked(body, prompt, model)
        key = ids.draw_keys(entry.id, body.seq_id)[bool(asked)]
        room = model.context - len(prompt)
        params = sampling_of(body.sampling_params, room=room, top=body.topk_sample_logprobs, seed=key)
        said = hashlib.sha256(body.model_dump_json().encode()).hexdigest()[:32]
        request = SampleRequest(prompt, body.num_samples, params)
        async with AsyncExitStack() as admitted:
            # Before the draw is: what is turned away for now is told so at once, and as a whole.
            live = await self._admitted(admitted, key, entry, prompt) if asked else None
            promise = self._service.draw(who, key, entry.id, [request], digest=said)
            parts: list[Part] = [promise.result]
            if live is not None:
                reading = _read(live, _reading(key, body, prompt, asked), admitted.pop_all())
                self._face.samples.keep(key, Extra(asked, _started(reading)))
            if (extra := self._face.samples.extra(key)) is not None:
                parts.append(extra.read)
        self._face.channel(who, entry.id, body.seq_id // CLONE).watch(key, *parts)
        await promise.durable()
        sequences = [f"{key}:{index}" for index in range(body.num_samples)]
        return JSONResponse({"request_id": key, "sample_sequence_ids": sequences})

    async def _admitted(
        self, admitted: AsyncExitStack, key: str, entry: SamplerEntry, prompt: list[int]
    ) -> BrokerSampler | None:
        """What a prompt is read with while ``admitted`` is open; None where it was read before, or is being read.

        Raises:
            BalanceError: the tenant's balance is used up.
            BusyError: too much waits already.
        """
        if self._face.samples.extra(key) is not None:
            return None
        return await admitted.enter_async_context(self._service.readings.of(entry, [prompt]))


async def _read(live: BrokerSampler, reading: ReadRequest, admitted: AsyncExitStack) -> PromptReading:
    async with admitted:
        return await live.read(reading)


def _reading(key: str, body: bodies.SampleBody, prompt: list[int], asked: Asked) -> ReadRequest:
    """What is to be read of a prompt beside the draw."""
    targets = None if asked.targets is None else wanted_targets(asked.targets, len(prompt))
    temperature = body.sampling_params.temperature or 1.0
    return ReadRequest(prompt, asked.top, targets, asked.draws, temperature, number_of(key))


def _prompt(body: bodies.SampleBody, model: Model) -> list[int]:
    """The prompt's tokens.

    Raises:
        LossInputError: there are none, too many, or some that the model does not know.
    """
    prompt = text_tokens(body.prompt.chunks)
    if not prompt:
        raise LossInputError("the prompt is empty: send at least one token")
    if len(prompt) >= model.context:
        room = f"the context of {model.name} holds {model.context}"
        raise LossInputError(f"the prompt has {len(prompt)} tokens, and {room}, with at least one to be drawn")
    stop = body.sampling_params.stop
    given = [*prompt, *(each for each in (stop if isinstance(stop, list) else ()) if isinstance(each, int))]
    if max(given) >= model.vocabulary:
        raise LossInputError(f"there is no token {max(given)}: ids of {model.name} are 0 to {model.vocabulary - 1}")
    return prompt


def _asked(body: bodies.SampleBody, prompt: list[int], model: Model) -> Asked:
    """What is to be read of the prompt.

    Raises:
        LossInputError: it cannot be read.
    """
    last, length = body.prompt_logprobs_last_n, len(prompt)
    if last is not None and not (body.prompt_logprobs and last < length):
        raise LossInputError("prompt_logprobs_last_n needs prompt_logprobs, and must be below the prompt's length")
    targets = None
    if body.target_prompt_logprobs is not None:
        targets = tensors.of_json("target_prompt_logprobs", body.target_prompt_logprobs)
        if len(targets.shape) != 2 or targets.shape[0] != length - 1 or not targets.shape[1]:
            what = f"shape {list(targets.shape)} beside a prompt of {length} tokens"
            raise LossInputError(f"target_prompt_logprobs has {what}: [{length - 1}, K] is needed")
        values = targets.values if isinstance(targets, tensors.Sparse) else targets
        if values.dtype.kind != "i":
            raise LossInputError("target_prompt_logprobs must be int64")
        if values.size and not (values.min() >= -1 and values.max() < model.vocabulary):
            known = f"ids of {model.name} are 0 to {model.vocabulary - 1}, and -1 asks nothing"
            raise LossInputError(f"target_prompt_logprobs go from {values.min()} to {values.max()}: {known}")
    wide = max(body.topk_prompt_logprobs, body.prompt_alt_tokens_k, 0 if targets is None else targets.shape[1])
    if length * wide > MOST_CELLS and not isinstance(targets, tensors.Sparse):
        raise LossInputError(f"{length} prompt tokens times {wide} asked about at each is more than {MOST_CELLS}")
    return Asked(
        logprobs=bool(body.prompt_logprobs),
        top=body.topk_prompt_logprobs,
        last=last,
        targets=targets,
        draws=body.prompt_alt_tokens_k,
    )


def _started(reading: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
    task = asyncio.get_running_loop().create_task(reading)
    # What fails is told to whoever asks, and not on the console.
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return task
