"""A sampler of a broker: its calls, joined with those of others."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from fettle.broker.schedule import Gatherer, Worker
from fettle.config import SamplingParams
from fettle.engine.base import Backend, Pooling, ReadRequest, SampleRequest
from fettle.types import Completion, Floats, PromptReading, Tokens


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
        self._logprobs: dict[float, Gatherer[Tokens, Floats]] = {}
        self._score: Gatherer[Tokens, float] = Gatherer(worker, partial(backend.scores, weights))
        self._read: Gatherer[ReadRequest, PromptReading] = Gatherer(worker, lambda asked: backend.read(weights, asked))
        self._embed: dict[tuple[int, Pooling], Gatherer[Tokens, Floats]] = {}

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
            self._logprobs[temperature] = Gatherer(self._worker, read)
        async with self._held():
            found = await self._logprobs[temperature](tokens)
        return [None, *map(float, found[1:])]

    async def score(self, tokens: Tokens) -> float:
        """What the reward head says of a sequence."""
        async with self._held():
            return await self._score(tokens)

    async def read(self, request: ReadRequest) -> PromptReading:
        """What the model says at each place of a given sequence."""
        async with self._held():
            return await self._read(request)

    async def embed(self, tokens: Tokens, *, layer: int = -1, pooling: Pooling = "mean") -> Floats:
        """The states that one layer gives a sequence, as one."""
        if (layer, pooling) not in self._embed:
            states = partial(self._backend.embed, self._weights, layer=layer, pooling=pooling)
            self._embed[layer, pooling] = Gatherer(self._worker, states)
        async with self._held():
            return await self._embed[layer, pooling](tokens)


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
