"""What goes on from a checkpoint or a model: runs that begin, and runs that take a checkpoint up in place."""

import hashlib

from fettle.broker import Promise
from fettle.broker.promises import open_id, operation_id
from fettle.calls import Create, Load, Restore
from fettle.config import PolicySpec
from fettle.errors import ConfigError, NotFoundError
from fettle.service.audit import Audit
from fettle.service.callers import Caller
from fettle.service.checkpoints import SCHEME, Checkpoints
from fettle.service.entries import CheckpointEntry, Run
from fettle.service.models import Models
from fettle.service.runs import Described, Runs
from fettle.service.work import Work


class Beginnings:
    """A request that comes again is answered as before, whatever became of its checkpoint since."""

    def __init__(self, runs: Runs, checkpoints: Checkpoints, work: Work, models: Models, audit: Audit) -> None:
        self._runs = runs
        self._checkpoints = checkpoints
        self._work = work
        self._models = models
        self._audit = audit

    async def create(self, caller: Caller, spec: PolicySpec, told: Described) -> Promise:
        """A run from a served model, or from a checkpoint's weights taken as if they were a model's."""
        if not isinstance(spec.model, str):
            raise ConfigError("a run begins from a served model: give its name as base_model")
        if not spec.model.startswith(SCHEME):
            served = self._models.named(spec.model)
            return await self._begun(caller, self._runs.planned(caller, spec, told, model=served.name), served.path)
        found = await self._checkpoint(caller, spec.model, told.run_id)
        if isinstance(found, Promise):
            return found
        run = self._runs.planned(caller, spec, told, model=found.model, checkpoint=found.id)
        return await self._begun(caller, run, found.path)

    async def load(self, caller: Caller, checkpoint: str, told: Described, *, optimizer: bool) -> Promise:
        """A run that goes on from a checkpoint."""
        found = await self._checkpoint(caller, checkpoint, told.run_id)
        if isinstance(found, Promise):
            return found
        run = self._runs.planned(caller, found.spec, told, model=found.model, checkpoint=found.id)
        return await self._begun(caller, run, Load(found.path, optimizer=optimizer))

    async def restore(
        self,
        caller: Caller,
        run: Run,
        incarnation: int | None,
        seq: int | None,
        checkpoint: str,
        *,
        optimizer: bool,
        digest: str | None,
    ) -> Promise:
        """Take a checkpoint up in place. The request is known again by the checkpoint's address."""
        address = checkpoint.removeprefix(SCHEME)
        said = digest or hashlib.sha256(f"restore/{address}/{optimizer}".encode()).hexdigest()[:32]
        holder, number = self._work.number(run, incarnation, seq)
        if seq is not None and self._work.known(operation_id(run.id, holder, number)) is not None:
            return self._work.submit(run, holder, number, Restore(address, optimizer=optimizer), digest=said)
        entry = await self._checkpoints.fetched(self._checkpoints.checkpoint(caller, checkpoint))
        return self._work.submit(run, incarnation, seq, Restore(entry.path, optimizer=optimizer), digest=said)

    async def _begun(self, caller: Caller, run: Run, call: Load | str) -> Promise:
        given = Create(run.spec.model_copy(update={"model": call})) if isinstance(call, str) else call
        promise = await self._work.begin(run, given)
        self._audit.note("run_made", caller, subject=run.id)
        return promise

    async def _checkpoint(self, caller: Caller, id: str, run_id: str | None) -> CheckpointEntry | Promise:
        """The checkpoint; or the promise of the run that began from it when it was another, or was still there."""
        run = None if run_id is None else self._runs.find(run_id)
        promise = None
        if run is not None and run.tenant == caller.tenant and run.checkpoint == id.removeprefix(SCHEME):
            promise = self._work.known(open_id(run.id))
        try:
            entry = self._checkpoints.checkpoint(caller, id)
        except NotFoundError:
            if promise is None:
                raise
            return promise
        if promise is not None and self._work.made_of(promise.policy) != entry.path:
            return promise
        return await self._checkpoints.fetched(entry)
