"""What the journal holds of one policy, and the records that say it."""

import asyncio
import hashlib
from dataclasses import dataclass, field, replace

import numpy as np

from fettle.broker.journal import Place
from fettle.broker.promises import Promise
from fettle.calls import DIGEST_LENGTH, Call, call_of, call_tree
from fettle.errors import EngineError, FettleError
from fettle.frames import Tree, packed, result_tree, unpacked
from fettle.types import ForwardResult

Order = tuple[int, int]
"""An operation's incarnation and number: the order in which those of one policy are carried out."""

NOWHERE = Place(0, 0)

OPENING: Order = (0, -1)
"""Before every operation: a policy's beginning."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A policy written down whole."""

    before: Order
    """The first operation that is not in it."""
    folder: str
    """Its name in the folder of the policy's snapshots."""
    held: tuple[str, ...]
    """Pins that it may have."""


@dataclass(slots=True)
class Written:
    """What there is of one policy."""

    place: Place = NOWHERE
    """Of the record that says how it stands."""
    tail: dict[Order, Place] = field(default_factory=dict)
    """Operations that are not in the oldest snapshot that is kept."""
    sources: dict[str, Order] = field(default_factory=dict)
    """Folders and models that it began from or took up, each with the operation that did so last."""
    used: set[Order] = field(default_factory=set)
    """Of the same, those that were answered before it was their turn: it never comes."""
    snapshots: list[Snapshot] = field(default_factory=list)
    """Those that are kept, the newest last."""
    since: int = 0
    """Operations answered since the newest."""
    reached: Order = (0, 0)
    """On the worker's thread: the first operation that was not carried out."""
    took: float = 0.0
    """Seconds that the newest took to be written."""
    parked: bool = False
    """It is nowhere else."""
    timer: asyncio.TimerHandle | None = None
    """Until it is tried once more, after a failure."""
    taking: asyncio.Task[None] | None = None
    """The next is being written."""
    again: bool = False
    """One more is due after it."""
    reviving: asyncio.Future[None] | None = None
    """It is being taken back from the newest."""
    away: bool = False
    """That failed the last time; its operations wait until it succeeds."""

    @property
    def begin(self) -> Order:
        """The first operation that comes after the newest snapshot."""
        return self.snapshots[-1].before if self.snapshots else (0, 0)


def following(order: Order) -> Order:
    """The operation after it."""
    return order[0], order[1] + 1


def body_of(call: Call) -> tuple[bytes, str]:
    """The call as a frame, and a hash of it (see ``call_digest``)."""
    body = packed(call_tree(call))
    return body, hashlib.sha256(body).hexdigest()[:DIGEST_LENGTH]


def call_in(tree: Tree) -> Call:
    """The call of a record."""
    return call_of(unpacked(tree["call"].data))


def opening_record(promise: Promise, body: bytes) -> Tree:
    """A policy was opened."""
    return {"record": "open", **_asked(promise), "call": np.frombuffer(body, np.uint8)}


def operation_record(promise: Promise, order: Order, body: bytes) -> Tree:
    """An operation was taken in."""
    said = {"incarnation": order[0], "seq": order[1], "call": np.frombuffer(body, np.uint8)}
    return {"record": "operation", **_asked(promise), **said}


def draw_record(promise: Promise, sampler: str, requests: Tree) -> Tree:
    """A draw was taken in."""
    return {"record": "draw", **_asked(promise), "sampler": sampler, "requests": requests}


def answer_record(promise: Promise, answer: object) -> Tree:
    """What it came to. Of answers that nobody will ask for only the figures are written."""
    told = {"seconds": promise.seconds, "at": promise.answered_at, "kept": not promise.acknowledged}
    return {"record": "answer", **_asked(promise), **told, "result": result_tree(_said(answer, promise.acknowledged))}


def _asked(promise: Promise) -> dict[str, Tree]:
    return {
        "id": promise.id,
        "policy": promise.policy,
        "tenant": promise.tenant,
        "kind": promise.kind,
        "tokens": promise.tokens,
        "digest": promise.digest,
    }


def _said(answer: object, brief: bool) -> object:
    if isinstance(answer, BaseException) and not isinstance(answer, FettleError):
        return EngineError(f"the engine failed: {type(answer).__name__}: {answer}")
    if brief and isinstance(answer, ForwardResult):
        return replace(answer, logprobs=[], values=[], scores=[])
    return [] if brief and isinstance(answer, list) else answer
