"""``/v1/models``, ``/v1/completions`` and ``/v1/chat/completions``, as OpenAI's clients speak them."""

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from fettle.config import SamplingParams
from fettle.engine.base import ReadRequest, SampleRequest
from fettle.errors import NotFoundError
from fettle.service.auth import authenticated
from fettle.service.callers import Caller
from fettle.service.core import Service
from fettle.service.faces.openai.answers import Answer
from fettle.service.faces.openai.bodies import ChatBody, CompletionBody, Drawing
from fettle.service.faces.openai.drawing import Overheard, completions
from fettle.service.faces.openai.forms import ChatForm, CompletionForm, Form, Prompt
from fettle.service.faces.openai.refusals import FieldError, OpenAIRoute
from fettle.service.faces.openai.told import read
from fettle.service.faces.openai.weights import Named, Weights
from fettle.types import Completion

USUAL_TOKENS = 16
"""Of a completion that says nothing of its length, as in OpenAI's API; a chat goes on to the end of the context."""
EVENTS = "text/event-stream; charset=utf-8"


def routes(service: Service) -> APIRouter:
    """Everything here."""
    router = APIRouter(prefix="/v1", route_class=OpenAIRoute, tags=["openai"])
    Known = Annotated[Caller, Depends(authenticated(service))]
    named = Named(service)
    drawer = Drawer(service)

    @router.get("/models", summary="What can be drawn from")
    async def models(caller: Known) -> dict[str, Any]:
        """Base models with their context, checkpoints, and runs that are being trained."""
        return {"object": "list", "data": [listed.tree for listed in await named.listed(caller)]}

    @router.get("/models/{name:path}", summary="One of them")
    async def model(caller: Known, name: str) -> dict[str, Any]:
        """What the list says of one name."""
        for listed in await named.listed(caller):
            if listed.id == name:
                return listed.tree
        raise NotFoundError(f"no model is called {name[:200]!r} here: GET /v1/models lists them all")

    @router.post("/completions", summary="Texts that go on from prompts")
    async def complete(request: Request, caller: Known, body: CompletionBody) -> Response:
        """A text, tokens, or a list of either."""
        weights = await named.weights(caller, body.model)
        prompts = await asyncio.to_thread(lambda: [_prompt(weights, given) for given in body.prompts])
        if body.echo and body.logprobs is not None:
            prompts = [await _read(service, weights, prompt, body.logprobs) for prompt in prompts]
        form = CompletionForm(body, weights.speaker, prompts)
        limit = USUAL_TOKENS if body.max_tokens is None else body.max_tokens
        top = None if body.logprobs is None else body.logprobs
        asked = _requests(body, weights, [prompt.tokens for prompt in prompts], limit=limit, top=top)
        return await drawer.answer(request, caller, _Asked(body, weights, form, asked, whole=top is not None))

    @router.post("/chat/completions", summary="Answers of an assistant")
    async def chat(request: Request, caller: Known, body: ChatBody) -> Response:
        """The prompt is what the model's own template makes of the messages and tools."""
        weights = await named.weights(caller, body.model)
        prompt = await asyncio.to_thread(weights.speaker.chat, body.messages, body.offered)
        top = body.top_logprobs if body.logprobs else None
        ends = weights.speaker.end_token_ids
        asked = _requests(body, weights, [prompt], limit=body.limit, top=top, ends=ends)
        form = ChatForm(body, weights.speaker)
        return await drawer.answer(request, caller, _Asked(body, weights, form, asked, whole=top is not None))

    return router


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request, understood."""

    body: Drawing
    weights: Weights
    form: Form
    requests: list[SampleRequest]
    whole: bool
    """Whether a stream tells of a choice only once it is whole: its log-probabilities are known no sooner."""


class Drawer:
    """Draws what was asked for and answers with it."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def answer(self, request: Request, caller: Caller, asked: _Asked) -> Response:
        """The answer, whole or as a stream."""
        body, weights = asked.body, asked.weights
        count = sum(len(each.prompt) for each in asked.requests)
        answer = Answer(asked.form, model=body.model, fingerprint=weights.fingerprint, prompt_tokens=count)
        if body.max_tokens == 0:
            return JSONResponse(answer.whole([_nothing(weights) for _ in range(len(asked.requests) * body.n)]))
        overheard = Overheard()
        requests = asked.requests
        if body.stream and not asked.whole:
            requests = [overheard.on(place, each) for place, each in enumerate(requests)]
        promise = self._service.draw(caller, f"openai-{secrets.token_hex(16)}", weights.sampler.id, requests)
        if not body.stream:
            return JSONResponse(answer.whole(await completions(promise, request)))
        usage = body.stream_options is not None and body.stream_options.include_usage
        pieces = answer.pieces(promise, overheard, n=body.n, count=len(requests) * body.n, usage=usage)
        return StreamingResponse(pieces, media_type=EVENTS, headers={"X-Accel-Buffering": "no"})


def _nothing(weights: Weights) -> Completion:
    """Where a prompt is only to be read."""
    return Completion([], [], "length", weights.sampler.live.policy_version)


def _prompt(weights: Weights, given: str | list[int]) -> Prompt:
    if isinstance(given, str):
        return Prompt(weights.speaker.text(given), given, [])
    speech = weights.speaker.speech()
    model = weights.speaker.model
    for token in given:
        if not 0 <= token < model.vocabulary:
            raise FieldError(
                "prompt", f"there is no token {token}: ids of {model.name} are 0 to {model.vocabulary - 1}"
            )
    return Prompt(given, "".join(map(speech.add, given)) + speech.rest(), [])


async def _read(service: Service, weights: Weights, prompt: Prompt, top: int) -> Prompt:
    """The prompt with the log-probabilities of its tokens."""
    async with service.readings.of(weights.sampler, [prompt.tokens]) as live:
        reading = await live.read(ReadRequest(prompt.tokens, top=top))
    return Prompt(prompt.tokens, prompt.text, read(prompt.tokens, reading))


def _requests(
    body: Drawing,
    weights: Weights,
    prompts: Sequence[list[int]],
    *,
    limit: int | None,
    top: int | None,
    ends: tuple[int, ...] = (),
) -> list[SampleRequest]:
    """One request a prompt; ``top`` is None where no log-probabilities are asked for.

    Raises:
        FieldError: a prompt is empty, or leaves no room in the context.
    """
    field = "messages" if isinstance(body, ChatBody) else "prompt"
    context = weights.speaker.model.context
    seed = secrets.randbits(31) if body.seed is None else body.seed
    requests = []
    for prompt in prompts:
        if not prompt:
            raise FieldError(field, f"{field} has no tokens: there is nothing to go on from")
        if len(prompt) >= context and limit != 0:
            raise FieldError(
                field,
                f"{field} has {len(prompt)} tokens, and the context of {weights.speaker.model.name} is {context}: "
                "leave room for an answer",
                "context_length_exceeded",
            )
        params = SamplingParams(
            max_tokens=min(limit or context, context - len(prompt)) if limit != 0 else 1,
            temperature=body.temperature,
            top_p=body.top_p,
            stop=tuple(body.stops),
            stop_token_ids=ends,
            seed=seed,
            untempered_logprobs=top is not None,
            top_logprobs=top or 0,
        )
        requests.append(SampleRequest(prompt, body.n, params))
    return requests
