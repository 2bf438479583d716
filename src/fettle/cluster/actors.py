"""Samplers that are actors: each a local engine that is sent weights, and draws from them."""

import logging
import shutil
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError

from fettle.cluster.hearing import Drawn, Enough, Kept
from fettle.cluster.parcel import Bytes, Parcel, pieces, refused, unpack
from fettle.cluster.rank import CONTROL, Answer
from fettle.cluster.seat import GoneError
from fettle.cluster.session import free, labelled
from fettle.config import ActorSamplers, LocalEngine, RayEngine
from fettle.engine.base import SampleRequest
from fettle.engine.local import LocalBackend
from fettle.errors import EngineError, FettleError
from fettle.types import Completion, Floats, Tokens

logger = logging.getLogger(__name__)

TRIES = 3
"""How often weights are sent before it is given up that they arrive whole."""


class SamplerActor:
    """The actor. Weights come under names that are never used twice, and are held until they are dropped."""

    def __init__(self, settings: LocalEngine) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="fettle-sampler-"))
        self._backend = LocalBackend(settings, checkpoints=self._folder)
        self._kept = Kept()
        self._arriving: dict[str, dict[str, Bytes]] = {}

    def alive(self) -> bool:
        """Answered beside whatever is being drawn; once it answers, it has begun."""
        return True

    def receive(self, name: str, sums: Mapping[str, str], sent: Mapping[str, Bytes] | Path) -> list[str]:
        """Weights, or some of them, or the folder that they are in; returns which are not what ``sums`` says.

        Once none is refused, they can be drawn from.
        """
        own = self._arriving.setdefault(name, {})
        own |= _read(sent) if isinstance(sent, Path) else sent
        faulty = refused(sums, own)
        if not faulty:
            folder = self._folder / name
            unpack(sums, self._arriving.pop(name), folder)
            self._backend.load_policy(name, str(folder), optimizer=False)
            self._backend.pin(name, name)
            shutil.rmtree(folder)
        return faulty

    def drop(self, name: str) -> None:
        """Weights that are not drawn from any more."""
        self._backend.unpin(name)
        self._backend.close_policy(name)

    def draw(self, names: Sequence[str], requests: Sequence[SampleRequest]) -> list[list[Completion]]:
        """In as few decode batches as can be."""
        with self._kept.keeping(requests) as kept:
            return self._backend.sample(names, kept)

    def heard(self, call: str, enough: Enough) -> list[Drawn]:
        """What it has drawn since for watches elsewhere; answered beside whatever is being drawn."""
        return self._kept.heard(call, enough)

    def logprobs(self, name: str, sequences: Sequence[Tokens]) -> list[Floats]:
        """At temperature 1."""
        return self._backend.logprobs(name, sequences, temperature=1.0)

    def answer(self, operation: str, *said: Any) -> Answer:
        """An operation, whose errors of ours come back as they are."""
        try:
            return Answer(getattr(self, operation)(*said))
        except FettleError as error:
            return Answer(error=error)

    def end(self) -> None:
        """Leave nothing on the disk."""
        shutil.rmtree(self._folder, ignore_errors=True)


class Shelf:
    """What all actors are sent, put into the object store once, by this process: it outlives every actor."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._refs: dict[str, Any] = {}

    def of(self, parcel: Parcel, transfer: Literal["objects", "files"]) -> Any:
        """A reference to the pieces of a parcel, or to the name of its folder."""
        with self._lock:
            if parcel.name not in self._refs:
                self._refs[parcel.name] = ray.put(parcel.folder if transfer == "files" else parcel.pieces)
            return self._refs[parcel.name]

    def clear(self, parcel: Parcel) -> None:
        """It is not sent any more."""
        with self._lock:
            self._refs.pop(parcel.name, None)


class ActorSeat:
    """Satisfies ``Seat``. One that is given up is begun anew, in a process of its own."""

    def __init__(self, name: str, settings: ActorSamplers, engine: RayEngine, shelf: Shelf) -> None:
        self.name = name
        self._shelf = shelf
        self._settings = settings
        self._engine = engine
        self._held: set[str] = set()
        self._begin()

    def wait(self) -> None:
        """Until it has begun.

        Raises:
            EngineError: it has not, within ``start_seconds``.
        """
        try:
            ray.get(self._begun, timeout=self._engine.start_seconds)
        except GetTimeoutError as error:
            raise EngineError(
                f"after {self._engine.start_seconds:g} s {self.name} has not begun, which needs "
                f"{self._settings.threads} CPU{labelled(self._settings.labels)}: {free({'CPU': 1})} are free in the "
                "cluster; lower engine.samplers.count or engine.samplers.threads, or add a machine"
            ) from error
        except RayActorError as error:
            raise EngineError(f"{self.name} ended as it began: see Ray's logs") from error

    def take(self, parcel: Parcel) -> None:
        """All of it, and again what did not arrive as it was sent."""
        self._held.add(parcel.name)
        sent = self._shelf.of(parcel, self._settings.transfer)
        faulty = self._told("receive", parcel.name, parcel.sums, sent)
        for _ in range(TRIES - 1):
            if not faulty:
                return
            logger.warning("%s refuses %s of version %d: sent again", self.name, ", ".join(faulty), parcel.version)
            again = {name: parcel.pieces[name] for name in faulty}
            faulty = self._told("receive", parcel.name, parcel.sums, ray.put(again))
        if faulty:
            raise EngineError(
                f"{self.name} was sent the weights of version {parcel.version} {TRIES} times, and {faulty[0]} never "
                "arrived as it was sent: look at the memory and the network of its machine"
            )

    def drop(self, parcel: Parcel) -> None:
        """After what is being drawn."""
        self._shelf.clear(parcel)
        if parcel.name in self._held:
            self._held.remove(parcel.name)
            self._actor.answer.remote("drop", parcel.name)

    def holds(self, name: str) -> bool:
        """Whether they were sent."""
        return name in self._held

    def draw(self, parcels: Sequence[Parcel], requests: Sequence[SampleRequest]) -> list[list[Completion]]:
        """In one decode batch."""
        found: list[list[Completion]] = self._told("draw", [parcel.name for parcel in parcels], list(requests))
        return found

    def actor(self) -> Any:
        """The one that draws now."""
        return self._actor

    def logprobs(self, parcel: Parcel, sequences: Sequence[Tokens]) -> list[Floats]:
        """By its own arithmetic."""
        found: list[Floats] = self._told("logprobs", parcel.name, list(sequences))
        return found

    def alive(self) -> bool:
        """Within ``silent_seconds``."""
        try:
            control = self._actor.alive.options(concurrency_group=CONTROL)
            return bool(ray.get(control.remote(), timeout=self._engine.silent_seconds))
        except (RayActorError, GetTimeoutError):
            return False

    def leave(self) -> None:
        """End what may be left of it, and begin another."""
        ray.kill(self._actor)
        self._held = set()
        self._begin()

    def back(self) -> bool:
        """Whether the other has begun; nobody waits for that."""
        ready, _ = ray.wait([self._begun], timeout=0)
        return bool(ready) and self.alive()

    def close(self) -> None:
        """End it."""
        with suppress(RayActorError, GetTimeoutError):
            ray.get(self._actor.end.options(concurrency_group=CONTROL).remote(), timeout=1)
        ray.kill(self._actor)

    def _begin(self) -> None:
        own = LocalEngine(device="cpu", threads=self._settings.threads, sample_tokens=self._engine.sample_tokens)
        kind = ray.remote(
            num_cpus=self._settings.threads,
            max_restarts=0,
            max_task_retries=0,
            concurrency_groups={CONTROL: 1},
            label_selector=dict(self._settings.labels),
        )(SamplerActor)
        self._actor: Any = kind.remote(own)
        self._begun = self._actor.alive.options(concurrency_group=CONTROL).remote()

    def _told(self, operation: str, *said: Any) -> Any:
        try:
            answer: Answer = ray.get(self._actor.answer.remote(operation, *said))
        except RayError as error:
            ended = isinstance(error, RayActorError)
            raise GoneError("its process has ended" if ended else str(error).splitlines()[-1]) from error
        if answer.error is not None:
            raise answer.error
        return answer.result


def _read(folder: Path) -> dict[str, Bytes]:
    """What is in a folder, or nothing where it cannot even be told what that is."""
    try:
        return pieces(folder)
    except (ValueError, TypeError, AttributeError, LookupError):
        return {}


def begun(settings: ActorSamplers, engine: RayEngine) -> list[ActorSeat]:
    """All of them, side by side.

    Raises:
        EngineError: there is no room for them.
    """
    shelf = Shelf()
    seats = [ActorSeat(f"sampler {place}", settings, engine, shelf) for place in range(settings.count)]
    try:
        for seat in seats:
            seat.wait()
    except BaseException:
        for seat in seats:
            seat.close()
        raise
    return seats
