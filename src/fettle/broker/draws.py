"""The door for draws: by key, each drawn once, whatever it is drawn from."""

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from fettle.broker.ledger import Asked, Ledger
from fettle.broker.pins import Pins
from fettle.broker.promises import Promise
from fettle.broker.samplers import Draw, Drawing
from fettle.broker.written import draw_record
from fettle.calls import DIGEST_LENGTH
from fettle.config import SamplingParams
from fettle.engine.base import SampleRequest, Until, Watch
from fettle.errors import SequenceError
from fettle.frames import Tree, packed
from fettle.types import Completion

DRAW = "draw"
"""The kind of such a promise."""


class Draws:
    """Draws that were taken in."""

    def __init__(self, ledger: Ledger, pins: Pins, drawing: Drawing) -> None:
        self._ledger = ledger
        self._pins = pins
        self._drawing = drawing
        self._tasks: dict[Promise, asyncio.Task[None]] = {}

    @property
    def under_way(self) -> int:
        """How many are not done."""
        return len(self._tasks)

    def draw(
        self, key: str, sampler: str, requests: Sequence[SampleRequest], *, tenant: str, digest: str | None
    ) -> Promise:
        """The promise of the completions; the same key again, the same promise.

        Raises:
            SequenceError: the key was used for something else.
        """
        said = digest or partial(draw_digest, sampler, requests)
        known = self._ledger.find(key)
        if known is not None:
            if known.kind != DRAW or known.digest != (said if isinstance(said, str) else said()):
                raise SequenceError(f"the key {key!r} was sent before with different contents: give each draw its own")
            return known
        tokens = sum(Draw("", sampler, request).tokens for request in requests)
        nbytes = sum(8 * len(request.prompt) for request in requests)
        asked = Asked(key, "", tenant, DRAW, tokens, nbytes, said)
        promise = self._ledger.take_in(asked, lambda taken: draw_record(taken, sampler, requests_tree(requests)))
        self.begin(promise, sampler, requests)
        return promise

    def begin(self, promise: Promise, sampler: str, requests: Sequence[SampleRequest]) -> None:
        """Draw for a promise that was given."""
        pin = sampler if sampler in self._pins else None
        if pin is not None:
            self._pins.take(pin)
        task = asyncio.get_running_loop().create_task(self._drawn(promise, sampler, pin, requests))
        self._tasks[promise] = task
        task.add_done_callback(partial(self._ended, promise, pin))

    def cancel(self, promise: Promise) -> bool:
        """Stop: what waits is not drawn, and of what is being drawn nothing more. False where all is drawn already."""
        return promise in self._tasks and self._tasks[promise].cancel()

    async def _drawn(self, promise: Promise, sampler: str, pin: str | None, requests: Sequence[SampleRequest]) -> None:
        owner = sampler if pin is None else await self._pins.ready(pin)
        draws = [Draw(owner, sampler, _stopped_by(promise, request), promise.tenant) for request in requests]
        found = await self._drawing(draws) if draws else []
        if promise.done:
            return
        completions: list[Completion] = [completion for drawn in found for completion in drawn.completions]
        promise.seconds = sum(drawn.seconds for drawn in found)
        promise.tokens = sum(len(completion.tokens) for completion in completions)
        self._leave(promise, pin)  # first: whoever is told may let the weights go
        self._ledger.answer(promise, completions)

    def _leave(self, promise: Promise, pin: str | None) -> None:
        """It is no longer under way."""
        if self._tasks.pop(promise, None) is not None and pin is not None:
            self._pins.leave(pin)

    def _ended(self, promise: Promise, pin: str | None, task: asyncio.Task[None]) -> None:
        self._leave(promise, pin)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._ledger.answer(promise, error)


def draw_digest(sampler: str, requests: Sequence[SampleRequest]) -> str:
    """A hash of everything a draw says."""
    tree = {"sampler": sampler, "requests": requests_tree(requests)}
    return hashlib.sha256(packed(tree)).hexdigest()[:DIGEST_LENGTH]


def requests_tree(requests: Sequence[SampleRequest]) -> Tree:
    """What is asked for, without who watches it."""
    prompts = [np.asarray(request.prompt, np.int64) for request in requests]
    return [
        {"prompt": prompt, "n": request.n, "params": request.params.model_dump(mode="json")}
        for prompt, request in zip(prompts, requests, strict=True)
    ]


def requests_of(tree: Tree) -> list[SampleRequest]:
    """The requests that :func:`requests_tree` said."""
    return [
        SampleRequest(one["prompt"].tolist(), one["n"], SamplingParams.model_validate(one["params"])) for one in tree
    ]


def _stopped_by(promise: Promise, request: SampleRequest) -> SampleRequest:
    """The request, of which nothing more is drawn once the promise is done without it."""
    if request.watch is None:
        return replace(request, watch=Until(lambda: promise.done))
    return replace(request, watch=_Stop(promise, request.watch))


class _Stop:
    """Satisfies ``Watch``."""

    def __init__(self, promise: Promise, inner: Watch) -> None:
        self._promise = promise
        self._inner = inner

    def __call__(self, index: int, token: int, logprob: float) -> bool:
        return not self._promise.done and self._inner(index, token, logprob)
