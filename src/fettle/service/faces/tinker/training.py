"""Models being trained: they are made, take batches and steps."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from fettle.broker import Promise
from fettle.calls import Call, OptimStep, call_digest
from fettle.config import PolicySpec
from fettle.errors import BusyError, ConfigError, NotFoundError
from fettle.service import wire
from fettle.service.callers import Caller
from fettle.service.faces.tinker import batches, bodies, ids
from fettle.service.faces.tinker.face import NAMED_AS, Face, Who, add, promised
from fettle.service.faces.tinker.settings import adam_of, lora_of, number_of, texts

PROTOBUF = "application/x-protobuf"


class Training:
    """The routes of models being trained."""

    def __init__(self, face: Face) -> None:
        self._face = face
        self._service = face.service
        # Clients load the tokenizer themselves: from a folder they share with the service, or from the hub.
        folders = {model.name: Path(model.path) for model in face.service.models}
        self._tokenizers = {name: str(path.resolve() if path.is_dir() else path) for name, path in folders.items()}

    def add_to(self, router: APIRouter) -> None:
        """Put them on a router."""
        add(router, "POST", "/create_model", self.create)
        add(router, "POST", "/get_info", self.info)
        add(router, "POST", "/forward_backward", self.forward_backward)
        add(router, "POST", "/forward", self.forward)
        add(router, "POST", "/optim_step", self.optim_step)

    async def create(self, who: Who, body: bodies.CreateModel) -> JSONResponse:
        """A model with a fresh adapter."""
        if body.optimizer_config.type != "adamw":
            raise ConfigError(f"optimizer_config names {body.optimizer_config.type!r}, and adamw is what there is")
        model = ids.model_id(body.session_id, body.model_seq_id)
        given = body.lora_config or bodies.LoraConfig()
        seed = number_of(model) if given.seed is None else given.seed
        spec = PolicySpec(model=body.base_model, lora=lora_of(given), seed=seed)
        metadata = {**texts(body.user_metadata), NAMED_AS: body.base_model}
        try:
            promise = await self._service.create_run(
                who, spec, run_id=model, metadata=metadata, session=body.session_id
            )
        except (NotFoundError, BusyError) as error:
            # A name that is not served is no lost session, and a full house none to ask at for five minutes more.
            raise ConfigError(error.message) from error
        return await promised(promise)

    async def info(self, who: Who, body: bodies.ModelOnly) -> JSONResponse:
        """What a model is."""
        run = self._face.run(who, body.model_id)
        served = self._service.models.named(run.model)
        name = self._face.named(run)
        rank = run.spec.lora.rank if run.spec.lora else None
        return JSONResponse(
            {
                "type": "get_info",
                "model_id": run.id,
                "model_name": name,
                "model_data": {"arch": "causal_lm", "model_name": name, "tokenizer_id": self._tokenizers[served.name]},
                "is_lora": rank is not None,
                "lora_rank": rank,
                "optimizer_config": {"type": "adamw"},
            }
        )

    async def forward_backward(self, who: Who, request: Request) -> JSONResponse:
        """Gradients, or only the log-probabilities, of a batch in protobuf; JSON from clients before it."""
        allowed = self._service.settings.stable_reinforce
        if wire.media_type(request) == PROTOBUF:
            return await self._submitted(who, request, partial(batches.of_proto, stable_reinforce=allowed))
        read = wire.tree_reader(request)
        return await self._submitted(who, request, lambda body: batches.of_json(read(body), stable_reinforce=allowed))

    async def forward(self, who: Who, request: Request) -> JSONResponse:
        """Log-probabilities of a batch, from clients before protobuf."""
        allowed, read = self._service.settings.stable_reinforce, wire.tree_reader(request)
        of_json = partial(batches.of_json, forward_only=True, stable_reinforce=allowed)
        return await self._submitted(who, request, lambda body: of_json(read(body)))

    async def optim_step(self, who: Who, body: bodies.OptimStepBody) -> JSONResponse:
        """A step of the optimizer."""
        call = OptimStep(adam_of(body), empty=True)
        return await promised(await self._once(who, body.model_id, body.seq_id, call, call_digest(call)))

    async def _submitted(self, who: Caller, request: Request, read: Callable[[bytes], batches.Batch]) -> JSONResponse:
        batch, digest = await wire.made_of(request, lambda body: _digested(read(body)))
        said = batches.widths_said(batch.widths)
        return await promised(await self._once(who, batch.model, batch.seq, batch.call, digest + said), said)

    async def _once(self, who: Caller, model: str, seq: int | None, call: Call, said: str) -> Promise:
        """Hand an operation over, unless it was before."""
        self._face.run(who, model)

        async def submit(incarnation: int, number: int, digest: str) -> Promise:
            return self._service.submit(who, model, incarnation, number, call, digest=digest)

        return await self._face.numbering.once(model, seq, said, submit)


def _digested(batch: batches.Batch) -> tuple[batches.Batch, str]:
    return batch, call_digest(batch.call)
