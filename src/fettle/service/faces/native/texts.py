"""Texts to tokens and back, conversations, vectors, and the files that tokenizers are read from."""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import FileResponse
from jinja2 import TemplateError

from fettle.errors import DataError, LossInputError
from fettle.frames import Tree
from fettle.service.auth import authenticated
from fettle.service.callers import Caller
from fettle.service.core import Service
from fettle.service.faces.native.bodies import ChatTemplate, Detokenize, Embeddings, OfModel, Tokenize
from fettle.service.models import Model
from fettle.service.said import described, said
from fettle.service.wire import answer

SHORT = 20_000
"""Characters that become tokens about as soon as a thread would be told to read them."""


def tokens_of(model: Model, prompt: str | Sequence[int]) -> list[int]:
    """The tokens of a prompt, which may be tokens already.

    Raises:
        LossInputError: it is empty, longer than the model's context, or names tokens that the model has not.
    """
    tokens = model.tokens_of(prompt) if isinstance(prompt, str) else list(prompt)
    if not tokens:
        raise LossInputError("the prompt is empty: give at least one token")
    if len(tokens) > model.context:
        raise LossInputError(f"the prompt has {len(tokens)} tokens, and {model.name} reads {model.context}: shorten it")
    if max(tokens) >= model.vocabulary:
        raise LossInputError(f"there is no token {max(tokens)}: ids of {model.name} are 0 to {model.vocabulary - 1}")
    return tokens


async def all_tokens(model: Model, prompts: Sequence[str | Sequence[int]]) -> list[list[int]]:
    """The tokens of each prompt; long texts are read while others are answered. Raises as :func:`tokens_of`."""
    if sum(len(prompt) for prompt in prompts if isinstance(prompt, str)) <= SHORT:
        return [tokens_of(model, prompt) for prompt in prompts]
    return await asyncio.to_thread(lambda: [tokens_of(model, prompt) for prompt in prompts])


def add_texts(router: APIRouter, service: Service) -> None:
    """The routes of tokenizers."""
    who = Annotated[Caller, Depends(authenticated(service))]

    @router.post("/tokenize", summary="Texts to tokens", openapi_extra=described(Tokenize, one={"text": "one two"}))
    async def tokenize(request: Request, caller: who) -> Response:
        body = await said(request, Tokenize)
        model = _model(service, body)
        one = isinstance(body.text, str)
        texts = [body.text] if isinstance(body.text, str) else body.text
        rows = await asyncio.to_thread(lambda: [model.tokens_of(text) for text in texts])
        return answer(request, {"model": model.name, "tokens": rows[0] if one else rows})

    @router.post("/detokenize", summary="Tokens to texts", openapi_extra=described(Detokenize, one={"tokens": [5, 9]}))
    async def detokenize(request: Request, caller: who) -> Response:
        body = await said(request, Detokenize)
        model = _model(service, body)
        several = bool(body.tokens) and isinstance(body.tokens[0], list)
        rows: Any = body.tokens if several else [body.tokens]
        skip = body.skip_special_tokens
        texts = await asyncio.to_thread(lambda: [model.text_of(row, skip_special_tokens=skip) for row in rows])
        return answer(request, {"model": model.name, "text": texts if several else texts[0]})

    turn = {"messages": [{"role": "user", "content": "1 + 1 ="}]}

    @router.post(
        "/chat_template",
        summary="A conversation as a model's template writes it",
        openapi_extra=described(ChatTemplate, question=turn),
    )
    async def chat_template(request: Request, caller: who) -> Response:
        body = await said(request, ChatTemplate)
        model = _model(service, body)
        text = await asyncio.to_thread(_written, model, body)
        tokens = await asyncio.to_thread(model.tokens_of, text)
        return answer(request, {"model": model.name, "text": text, "tokens": tokens})

    @router.post("/embeddings", summary="Texts to vectors", openapi_extra=described(Embeddings, one={"texts": ["one"]}))
    async def embeddings(request: Request, caller: who) -> Response:
        body = await said(request, Embeddings)
        return answer(request, await _embedded(service, caller, body))

    _add_files(router, service)


def _add_files(router: APIRouter, service: Service) -> None:
    who = Annotated[Caller, Depends(authenticated(service))]

    @router.get("/models/{name:path}/files", summary="Names of the files that a model's tokenizer is read from")
    async def files(request: Request, caller: who, name: str) -> Response:
        return answer(request, {"files": service.models.named(name).files})

    @router.get("/models/{name:path}/files/{file}", summary="One of them", response_class=FileResponse)
    async def file(caller: who, name: str, file: str) -> FileResponse:
        return FileResponse(service.models.named(name).file(file), media_type="application/octet-stream")


def _model(service: Service, body: OfModel) -> Model:
    return next(iter(service.models)) if body.model is None else service.models.named(body.model)


def _written(model: Model, body: ChatTemplate) -> str:
    rows = [{"role": message.role, "content": message.content} for message in body.messages]
    _ = model.template  # refuses a model that has none
    try:
        text: str = model.tokenizer.apply_chat_template(
            rows, tokenize=False, add_generation_prompt=body.add_generation_prompt
        )
    except (TemplateError, TypeError) as error:
        raise DataError(f"the chat template of {model.name} refuses this conversation: {error}") from error
    return text


async def _embedded(service: Service, caller: Caller, body: Embeddings) -> dict[str, Tree]:
    if (body.texts is None) == (body.input is None):
        raise DataError("embeddings are of texts, or of input: give one of the two")
    texts = body.texts or ([body.input] if isinstance(body.input, str) else list(body.input or ()))
    if body.sampler is not None:
        entry = service.sampler(caller, body.sampler)
        model = service.models.named(entry.model)
        rows = await all_tokens(model, texts)
        reading = service.readings.of(entry, rows)
    else:
        model = _model(service, body)
        rows = await all_tokens(model, texts)
        reading = service.readings.within(caller.tenant, await service.broker.sampler(model.path), rows)
    async with reading as live:
        embed = partial(live.embed, layer=body.layer, pooling=body.pooling)
        vectors = await asyncio.gather(*map(embed, rows))
    if body.input is None:
        return {"model": model.name, "embeddings": vectors, "dimensions": len(vectors[0])}
    count = sum(map(len, rows))
    data = [{"object": "embedding", "index": i, "embedding": vector} for i, vector in enumerate(vectors)]
    usage = {"prompt_tokens": count, "total_tokens": count}
    return {"object": "list", "model": model.name, "data": data, "usage": usage}
