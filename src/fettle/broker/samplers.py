"""A sampler of a broker: its calls, joined with those of others."""

import copy
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeVar

from fettle.broker.schedule import Gatherer, Worker
from fettle.config import SamplingParams
from fettle.engine.base import Backend, Pooling, ReadRequest, SampleRequest
from fettle.types import Completion, Floats, PromptReading, Tokens

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Draw:
    """One call of a sampler."""

    owner: str
    """The policy that the weights are of, or the model."""
    weights: str
    request: SampleRequest
    tenant: str = ""

    @property
    def tokens(self) -> int:
        """The most that it takes: its prompt, and every completion to its limit."""
        return len(self.request.prompt) + self.request.n * self.request.params.max_tokens


class Drawn(NamedTuple):
    """What it came to, and its share of the time that its batch took."""

    completions: list[Completion]
    seconds: float


Drawing = Callable[[Sequence[Draw]], Awaitable[Sequence[Drawn]]]
"""Where draws meet; those that come together stay together."""


Held = Callable[[], AbstractAsyncContextManager[str]]
"""Within it the weights can be used; yields whose they are: a policy's, or a model's own."""


class BrokerSampler:
    """Satisfies ``Sampler``. Calls issued together are drawn in one batch, those of other policies among them."""

    def __init__(
        self, backend: Backend, worker: Worker, draw: Drawing, weights: str, held: Held, *, version: int
    ) -> None:
        self.policy_version = version
        self._backend = backend
        self._worker = worker
        self._weights = weights
        self._held = held
        self._draw = draw
        self._logprobs: dict[float, Gatherer[Tokens, tuple[Floats, float]]] = {}
        self._score = Gatherer(worker, _timed(partial(backend.scores, weights), len))
        self._read = Gatherer(worker, _timed(partial(backend.read, weights), lambda asked: len(asked.tokens)))
        self._embed: dict[tuple[int, Pooling], Gatherer[Tokens, tuple[Floats, float]]] = {}
        self._spent: Callable[[float], object] = float
        self._flow = ""

    def metered(self, spent: Callable[[float], object], *, tenant: str = "") -> "BrokerSampler":
        """The same sampler for a tenant, in whose turns it reads; ``spent`` is told how many seconds each took."""
        metered = copy.copy(self)
        metered._spent, metered._flow = spent, tenant
        return metered

    async def sample(self, prompt: Tokens, n: int, params: SamplingParams) -> list[Completion]:
        """Draw ``n`` completions of one prompt."""
        return await self.drawn(SampleRequest(prompt, n, params))

    async def drawn(self, request: SampleRequest) -> list[Completion]:
        """The completions of a request, which may be watched."""
        async with self._held() as owner:
            (found,) = await self._draw([Draw(owner, self._weights, request)])
        return found.completions

    async def logprobs(self, tokens: Tokens, *, temperature: float = 1.0) -> list[float | None]:
        """The log-probability of each token after those before it."""
        if temperature not in self._logprobs:
            read = partial(self._backend.logprobs, self._weights, temperature=temperature)
            self._logprobs[temperature] = Gatherer(self._worker, _timed(read, len))
        async with self._held():
            found = await self._turned(self._logprobs[temperature], tokens, len(tokens))
        return [None, *map(float, found[1:])]

    async def score(self, tokens: Tokens) -> float:
        """What the reward head says of a sequence."""
        async with self._held():
            return await self._turned(self._score, tokens, len(tokens))

    async def read(self, request: ReadRequest) -> PromptReading:
        """What the model says at each place of a given sequence."""
        async with self._held():
            return await self._turned(self._read, request, len(request.tokens))

    async def embed(self, tokens: Tokens, *, layer: int = -1, pooling: Pooling = "mean") -> Floats:
        """The states that one layer gives a sequence, as one."""
        if (layer, pooling) not in self._embed:
            states = partial(self._backend.embed, self._weights, layer=layer, pooling=pooling)
            self._embed[layer, pooling] = Gatherer(self._worker, _timed(states, len))
        async with self._held():
            return await self._turned(self._embed[layer, pooling], tokens, len(tokens))

    async def _turned(self, read: Gatherer[Item, tuple[Result, float]], item: Item, tokens: int) -> Result:
        """What was read when it was the tenant's turn."""
        found, seconds = await read(item, flow=self._flow, cost=max(1, tokens))
        self._spent(seconds)
        return found


def _timed(
    call: Callable[[Sequence[Item]], Sequence[Result]], size: Callable[[Item], int]
) -> Callable[[Sequence[Item]], list[tuple[Result, float]]]:
    """A backend call that gives with each result its item's share of the time, by size."""

    def timed(items: Sequence[Item]) -> list[tuple[Result, float]]:
        started = time.perf_counter()
        found = call(items)
        share = (time.perf_counter() - started) / max(1, sum(map(size, items)))
        return [(result, share * size(item)) for item, result in zip(items, found, strict=True)]

    return timed


@asynccontextmanager
async def model_alone(name: str) -> AsyncIterator[str]:
    """A model that is only read is its own owner, and needs nothing to be used."""
    yield name


def apart(calls: Sequence[Draw]) -> list[list[int]]:
    """Places of calls that may share a batch: of each owner, those of one sampler.

    A loop that draws ahead or evaluates beside holds several samplers of one policy. Whether their calls meet in one
    turn depends on how fast the threads are, and what a row shares its batch with shows in its last bits.
    """
    samplers: dict[str, dict[str, int]] = {}
    batches: dict[int, list[int]] = {}
    for place, call in enumerate(calls):
        own = samplers.setdefault(call.owner, {})
        batches.setdefault(own.setdefault(call.weights, len(own)), []).append(place)
    return list(batches.values())
