"""Which weights a request means by its ``model``, and everything that can be meant."""

import asyncio
import hashlib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from fettle.errors import NotFoundError, StateError, did_you_mean
from fettle.service.callers import Caller
from fettle.service.core import Service
from fettle.service.entries import CheckpointEntry, Run, SamplerEntry
from fettle.service.faces.openai.speaker import Speaker
from fettle.service.ids import OPENAI

RUN = "run:"
SCHEMES = ("fettle://", "tinker://")
ALL = 1_000_000
BLOCKS, BLOCK = 64, 65_536
"""Of each file of weights so many blocks of so many bytes are looked at: two models share none of them."""


@dataclass(frozen=True, slots=True)
class Weights:
    """What is drawn from, and how it speaks."""

    sampler: SamplerEntry
    speaker: Speaker
    fingerprint: str
    """The same for the same weights."""


@dataclass(frozen=True, slots=True)
class Listed:
    """Something that can be drawn from."""

    id: str
    created: datetime
    owner: str
    base: str
    """The base model's served name."""
    context: int

    @property
    def tree(self) -> dict[str, Any]:
        """As the API tells it; ``context`` and ``base_model`` are ours."""
        return {
            "id": self.id,
            "object": "model",
            "created": int(self.created.timestamp()),
            "owned_by": self.owner,
            "context": self.context,
            "base_model": self.base,
        }


class Named:
    """Weights by name: base models, checkpoints, and runs that are being trained."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._broker = service.broker
        self._speakers: dict[str, Speaker] = {}
        self._fingerprints: dict[str, str] = {}
        self._since = service.clock()

    async def weights(self, caller: Caller, name: str) -> Weights:
        """What ``name`` means to a caller.

        Raises:
            NotFoundError: it means nothing, or what it means is another's.
            StateError: a run has no weights yet that can be drawn from.
        """
        if name.startswith(RUN):
            return await self._of_run(caller, self._known_run(caller, name))
        if name in self._names():
            return await self._of_model(caller, name)
        for scheme in SCHEMES:
            name = name.removeprefix(scheme)
        try:
            return await self._of_checkpoint(caller, self._service.checkpoint(caller, name))
        except NotFoundError as error:
            raise self._unknown(name) from error

    async def listed(self, caller: Caller) -> list[Listed]:
        """Everything that the caller can name."""
        names = self._names()
        checkpoints, _ = await self._service.checkpoints(caller, limit=ALL, offset=0)
        runs, _ = await self._service.runs(caller, limit=ALL, offset=0)
        runs = [run for run in runs if run.model in names]  # another base model is no longer served
        checkpoints = [entry for entry in checkpoints if entry.model in names]
        models = [
            Listed(name, self._since, "fettle", model.name, model.context)
            for model in self._service.models
            for name in (model.name, *model.aliases)
        ]
        saved = [self._listed(entry.id, entry) for entry in checkpoints]
        shown = {entry.run for entry in checkpoints} | {run.id for run in runs if self._broker.newest_pin(run.id)}
        trained = [self._listed(RUN + run.id, run) for run in runs if run.id in shown]
        return [*models, *saved, *trained]

    def _listed(self, id: str, entry: CheckpointEntry | Run) -> Listed:
        context = self._service.models.named(entry.model).context
        return Listed(id, entry.created_at, entry.tenant, entry.model, context)

    def _names(self) -> set[str]:
        return {name for model in self._service.models for name in (model.name, *model.aliases)}

    def _known_run(self, caller: Caller, name: str) -> Run:
        try:
            return self._service.run(caller, name.removeprefix(RUN))
        except NotFoundError as error:
            raise self._unknown(name) from error

    def _unknown(self, name: str) -> NotFoundError:
        return NotFoundError(
            f"no model is called {name[:200]!r} here: GET /v1/models lists them all{did_you_mean(name, self._names())}"
        )

    async def _of_model(self, caller: Caller, name: str) -> Weights:
        model = self._service.models.named(name)
        id = _sampler_id(caller, model.path)
        sampler = await self._service.open_sampler(caller, model=name, sampler_id=id)
        if model.path not in self._fingerprints:
            self._fingerprints[model.path] = await asyncio.to_thread(_fingerprint, model.path)
        return Weights(sampler, self._speaker(name), self._fingerprints[model.path])

    async def _of_checkpoint(self, caller: Caller, entry: CheckpointEntry) -> Weights:
        id = _sampler_id(caller, f"{entry.path}\0{entry.digest}")
        sampler = await self._service.open_sampler(caller, checkpoint=entry.id, sampler_id=id)
        return Weights(sampler, self._speaker(entry.model), _shown(entry.digest))

    async def _of_run(self, caller: Caller, run: Run) -> Weights:
        newest = await self._newest(caller, run)
        if newest is None:
            raise StateError(
                f"nobody has opened a sampler on the weights of the run {run.id}, nor saved them: "
                "do either, and ask again"
            )
        if isinstance(newest, CheckpointEntry):
            return await self._of_checkpoint(caller, newest)
        return Weights(newest, self._speaker(run.model), _shown(hashlib.sha256(newest.weights.encode()).hexdigest()))

    async def _newest(self, caller: Caller, run: Run) -> SamplerEntry | CheckpointEntry | None:
        """The newest weights of a run that somebody can draw from.

        A pin of our own would take a number of its line, which belongs to whoever trains it.
        """
        pin = self._broker.newest_pin(run.id)
        pinned = None if pin is None else self._service.sampler(caller, pin)
        saved, _ = await self._service.checkpoints(caller, run_id=run.id, limit=1)
        if pinned is not None and all(entry.policy_version <= pinned.live.policy_version for entry in saved):
            return pinned
        return saved[0] if saved else None

    def _speaker(self, name: str) -> Speaker:
        model = self._service.models.named(name)
        if model.name not in self._speakers:
            self._speakers[model.name] = Speaker(model)
        return self._speakers[model.name]


def _sampler_id(caller: Caller, weights: str) -> str:
    """One sampler for each tenant and weights, found again after a restart."""
    return OPENAI + hashlib.sha256(f"{caller.tenant}\0{weights}".encode()).hexdigest()[:32]


def _shown(digest: str) -> str:
    return f"fp_{digest[:16]}"


def _fingerprint(model: str) -> str:
    """Of a model's folder, from samples of its weights; of a hub name, from the name."""
    digest = hashlib.sha256()
    files = sorted(Path(model).glob("*.safetensors"))
    for path in files:
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            for place in range(BLOCKS):
                file.seek(max(0, size - BLOCK) * place // (BLOCKS - 1))
                digest.update(file.read(BLOCK))
    return _shown((digest if files else hashlib.sha256(model.encode())).hexdigest())
