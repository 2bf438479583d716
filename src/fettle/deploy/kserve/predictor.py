"""A model of Fettle's in KServe's ModelServer: its V1 and V2 protocols, and OpenAI's."""

import asyncio
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Annotated, Any

from fastapi import FastAPI
from kserve import InferOutput, InferRequest, InferResponse, Model
from kserve.errors import InferenceError, InvalidInput, ModelNotReady
from kserve.model_server import app
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fettle.config import SamplingParams
from fettle.engine import Sampler
from fettle.errors import EngineError, FettleError
from fettle.service.core import Service
from fettle.service.faces import openai
from fettle.service.faces.openai.choices import Choice
from fettle.service.faces.openai.speaker import Speaker
from fettle.service.folders import Discreet, Folders
from fettle.service.limits import Limits

PROMPT, TEXT, FINISH = "prompt", "text", "finish_reason"
"""Tensors of V2: what is asked, and what is answered. V1 calls them so too."""


class Asked(BaseModel):
    """One prompt, and how it goes on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: Annotated[str, Field(min_length=1)]
    max_tokens: Annotated[int, Field(ge=1)] = 16
    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    seed: int | None = None


class Predictor(Model):  # type: ignore[misc]  # the SDK has no types
    """The model of a service. It is ready once it has really generated something."""

    def __init__(self, name: str, opened: Callable[[], AbstractAsyncContextManager[Service]]) -> None:
        super().__init__(name)
        self._opened = opened
        self._ended = asyncio.Event()
        self._answering: tuple[Service, Sampler, Speaker] | None = None
        self.ready = True  # the server takes in no other; whether it answers, it asks of healthy()
        self.engine = True  # start_engine is awaited where requests are answered

    async def healthy(self) -> bool:
        """Whether a token was generated, and work is taken in."""
        if self._answering is None:
            return False
        service = self._answering[0]
        return service.ready and not service.stopping and service.broker.failed is None

    async def start_engine(self) -> None:
        """Answer until the server ends."""
        async with self._opened() as service:
            model = service.models.named(self.name)
            self._answering = service, await service.broker.sampler(model.path), Speaker(model)
            await service.start()
            app.mount("/openai", _face(service))
            await self._ended.wait()
            await service.stop()

    def stop_engine(self) -> None:
        """End."""
        self._ended.set()

    def get_input_types(self) -> list[dict[str, Any]]:
        """The tensor of V2 that is read."""
        return [{"name": PROMPT, "datatype": "BYTES", "shape": [-1]}]

    def get_output_types(self) -> list[dict[str, Any]]:
        """The tensors that are answered."""
        return [{"name": name, "datatype": "BYTES", "shape": [-1]} for name in (TEXT, FINISH)]

    async def predict(
        self, payload: dict[str, Any] | InferRequest, headers: Mapping[str, str] | None = None
    ) -> dict[str, Any] | InferResponse:
        """Texts that go on from prompts."""
        asked = _of_v2(payload) if isinstance(payload, InferRequest) else _of_v1(payload)
        try:
            answers = await asyncio.gather(*map(self._answer, asked))
        except EngineError as error:
            raise InferenceError(error.message) from error
        except FettleError as error:
            raise InvalidInput(error.message) from error
        if not isinstance(payload, InferRequest):
            return {"predictions": [{TEXT: text, FINISH: reason} for text, reason in answers]}
        columns = zip((TEXT, FINISH), zip(*answers, strict=True), strict=True)
        outputs = [InferOutput(name, [len(asked)], "BYTES", data=list(column)) for name, column in columns]
        return InferResponse(payload.id or secrets.token_hex(12), self.name, outputs)

    async def _answer(self, asked: Asked) -> tuple[str, str]:
        if self._answering is None:
            raise ModelNotReady(self.name)
        _, sampler, speaker = self._answering
        prompt = speaker.text(asked.prompt)
        seed = secrets.randbits(31) if asked.seed is None else asked.seed
        params = SamplingParams(**{**asked.model_dump(exclude={"prompt"}), "seed": seed})
        (completion,) = await sampler.sample(prompt, 1, params)
        choice = Choice(speaker, stop=asked.stop, before=prompt)
        ending = choice.ended(completion)
        return choice.text, ending.reason


def _face(service: Service) -> FastAPI:
    """What OpenAI's clients speak to, with bodies held to their size."""
    face = FastAPI(title="Fettle", docs_url=None, redoc_url=None)
    settings = service.settings
    face.add_middleware(Limits, max_body_mib=settings.max_body_mib, timeout_s=settings.request_timeout_s)
    face.add_middleware(Discreet, folders=Folders(settings))
    face.include_router(openai.routes(service))
    return face


def _of_v1(payload: Mapping[str, Any]) -> list[Asked]:
    instances = payload.get("instances")
    if not isinstance(instances, list) or not instances:
        raise InvalidInput("instances is missing: give a list of texts, or of objects with a prompt")
    return [
        _asked(each if isinstance(each, dict) else {PROMPT: each}, f"instances[{i}]")
        for i, each in enumerate(instances)
    ]


def _of_v2(request: InferRequest) -> list[Asked]:
    found = {each.name: each for each in request.inputs}
    if found.keys() != {PROMPT} or found[PROMPT].datatype != "BYTES":
        raise InvalidInput(f"inputs are {', '.join(found) or 'none'}: give one, {PROMPT}, of datatype BYTES")
    prompts: Sequence[Any] = found[PROMPT].as_numpy().reshape(-1).tolist()
    settings = dict(request.parameters or {})
    texts = [each.decode() if isinstance(each, bytes) else each for each in prompts]
    return [_asked({**settings, PROMPT: each}, f"{PROMPT}[{i}]") for i, each in enumerate(texts)]


def _asked(given: Mapping[str, Any], place: str) -> Asked:
    try:
        return Asked.model_validate(given)
    except ValidationError as error:
        faults = [f"{'.'.join([place, *map(str, fault['loc'])])}: {_said(fault['msg'])}" for fault in error.errors()]
        raise InvalidInput("; ".join(faults)) from error


def _said(message: str) -> str:
    message = message.removeprefix("Value error, ")
    return message[0].lower() + message[1:]
