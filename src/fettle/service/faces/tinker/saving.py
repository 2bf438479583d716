"""Checkpoints and samplers of models, and models that go on from a checkpoint."""

import hashlib

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from fettle.broker import Promise
from fettle.calls import Pin, call_digest
from fettle.errors import BusyError, CheckpointError, ConfigError, DataError, NotFoundError
from fettle.service.callers import Caller
from fettle.service.entries import CheckpointEntry, CheckpointKind
from fettle.service.faces.tinker import bodies, ids
from fettle.service.faces.tinker.face import NAMED_AS, Face, Who, add, promised
from fettle.service.faces.tinker.settings import texts


class Saving:
    """The routes that write and read weights."""

    def __init__(self, face: Face) -> None:
        self._face = face
        self._service = face.service

    def add_to(self, router: APIRouter) -> None:
        """Put them on a router."""
        add(router, "POST", "/save_weights", self.weights)
        add(router, "POST", "/save_weights_for_sampler", self.for_sampler)
        add(router, "POST", "/save_weights_external", self.external)
        add(router, "POST", "/load_weights", self.load)

    async def weights(self, who: Who, body: bodies.SaveWeights) -> JSONResponse:
        """A checkpoint to go on from, with the optimizer."""
        return await promised(await self._saved(who, body, "weights"))

    async def for_sampler(self, who: Who, body: bodies.SaveForSampler) -> JSONResponse:
        """A named checkpoint to sample from; or, without a name, weights that are kept as long as the session."""
        if body.sampling_session_seq_id is None:
            return await promised(await self._saved(who, body, "sampler_weights"))
        run = self._face.run(who, body.model_id)
        count = body.sampling_session_seq_id

        async def submit(incarnation: int, number: int, digest: str) -> Promise:
            return self._service.submit(who, run.id, incarnation, number, Pin(), digest=digest)

        said = f"{call_digest(Pin())}{count}"
        promise = await self._face.numbering.once(run.id, body.seq_id, said, submit)
        sampler = ids.sampler_id(ids.session_of(run.id), count)
        await self._service.open_sampler(who, pin=promise.id, session=run.session, sampler_id=sampler)
        return await promised(promise, str(count))

    async def external(self, who: Who, body: bodies.SaveWeights) -> JSONResponse:
        """A checkpoint to be downloaded, in the layout of PEFT."""
        return await promised(await self._saved(who, body, "sampler_weights", ids.EXTERNAL))

    async def load(self, who: Who, body: bodies.LoadWeights) -> JSONResponse:
        """Take up a checkpoint: in place, or as a new model."""
        if body.model_id is not None:
            return await promised(await self._restored(who, body, body.model_id))
        if body.session_id is None or body.model_seq_id is None:
            raise DataError("load_weights needs model_id, or session_id and model_seq_id for a new model")
        run_id = ids.model_id(body.session_id, body.model_seq_id)
        metadata = texts(body.user_metadata)
        if not self._is_known(who, run_id):
            checkpoint = self._loadable(who, body)
            if body.base_model is not None and self._service.models.named(body.base_model).name != checkpoint.model:
                raise CheckpointError(f"{body.path} is of {checkpoint.model}, and not of {body.base_model}")
            metadata = {**metadata, NAMED_AS: body.base_model or self._named(who, checkpoint)}
        try:
            promise = await self._service.load_run(
                who,
                ids.checkpoint_id(body.path),
                optimizer=body.optimizer,
                run_id=run_id,
                metadata=metadata,
                session=body.session_id,
            )
        except BusyError as error:
            raise ConfigError(error.message) from error
        return await promised(promise)

    def _named(self, who: Caller, checkpoint: CheckpointEntry) -> str:
        """A checkpoint's base model, as whoever saved it calls it."""
        return checkpoint.metadata.get(NAMED_AS, checkpoint.model)

    def _is_known(self, who: Caller, run_id: str) -> bool:
        """Whether the caller has this run, so that its request has come again."""
        try:
            return bool(self._service.run(who, run_id))
        except NotFoundError:
            return False

    def _loadable(self, who: Caller, body: bodies.LoadWeights) -> CheckpointEntry:
        """The checkpoint that training can go on from."""
        checkpoint = self._service.checkpoint(who, ids.checkpoint_id(body.path))
        if checkpoint.kind != "weights":
            raise CheckpointError(f"{body.path} was saved for a sampler: training goes on from one under weights/")
        return checkpoint

    async def _restored(self, who: Caller, body: bodies.LoadWeights, model: str) -> Promise:
        run = self._face.run(who, model)

        async def submit(incarnation: int, number: int, digest: str) -> Promise:
            checkpoint = self._loadable(who, body)
            if checkpoint.model != run.model:
                raise CheckpointError(f"{body.path} is of {checkpoint.model}, and {model} is a {run.model}")
            return await self._service.restore(
                who, model, incarnation, number, checkpoint.id, optimizer=body.optimizer, digest=digest
            )

        said = f"restore/{body.path}/{body.optimizer}"
        return await self._face.numbering.once(
            model, body.seq_id, hashlib.sha256(said.encode()).hexdigest()[:32], submit
        )

    async def _saved(self, who: Caller, body: bodies.SaveWeights, kind: CheckpointKind, prefix: str = "") -> Promise:
        run = self._face.run(who, body.model_id)
        if body.path is None:
            raise DataError("path is missing: give the checkpoint a name")
        name = prefix + ids.checked_name(body.path)

        async def submit(incarnation: int, number: int, digest: str) -> Promise:
            return await self._service.save(
                who,
                run.id,
                incarnation,
                number,
                kind=kind,
                name=name,
                ttl_seconds=body.ttl_seconds,
                overwrite=body.overwrite,
                metadata={**texts(body.user_metadata), NAMED_AS: self._face.named(run)},
                digest=digest,
            )

        said = f"save/{kind}/{name}/{body.ttl_seconds}/{body.overwrite}"
        return await self._face.numbering.once(
            run.id, body.seq_id, hashlib.sha256(said.encode()).hexdigest()[:32], submit
        )
