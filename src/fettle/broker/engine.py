"""An ``Engine`` over any backend: order, exactly-once, a thread or two, and batches."""

import asyncio
import itertools
import weakref
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from fettle.broker.oplog import Operation, OpLog, digest
from fettle.broker.schedule import Gatherer, Worker
from fettle.config import AdamW, LossConfig, PolicySpec, SamplingParams
from fettle.engine.base import Backend, Capabilities, SampleRequest
from fettle.errors import NotFoundError
from fettle.types import Checkpoint, Completion, Datum, Floats, ForwardResult, OptimResult, Tokens

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Draw:
    """One call of a sampler."""

    owner: str
    """The policy that the weights are of, or the model."""
    weights: str
    request: SampleRequest


class Broker:
    """Satisfies ``Engine``. ``submit`` is the same door for callers that bring their own numbers.

    A backend that samples beside training gets a thread for each, and all but ``sample`` is called on the first.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._worker = Worker()
        self._drawing = Worker() if backend.capabilities().sampling_beside else self._worker
        self._logs: dict[str, OpLog] = {}
        self._names = itertools.count()
        self._draw: Gatherer[Draw, list[Completion]] = Gatherer(self._drawing, self._drawn)

    async def create_policy(self, spec: PolicySpec) -> "BrokerPolicy":
        """A policy with the weights of ``spec.model``."""
        return await self._opened(lambda name: self._backend.create_policy(name, spec))

    async def load_policy(self, checkpoint: str, *, optimizer: bool) -> "BrokerPolicy":
        """A policy as it was saved."""
        return await self._opened(lambda name: self._backend.load_policy(name, checkpoint, optimizer=optimizer))

    async def sampler(self, weights: str) -> "BrokerSampler":
        """A sampler of a model or of a saved checkpoint."""
        version = await self._worker.run(lambda: self._backend.open(weights))
        return BrokerSampler(self._backend, self._worker, self._draw, weights, version, owner=weights)

    async def capabilities(self) -> Capabilities:
        """What the backend can do."""
        return await self._worker.run(self._backend.capabilities)

    async def statistics(self) -> Mapping[str, float]:
        """How the backend is doing."""
        return await self._worker.run(self._backend.statistics)

    async def submit(self, policy: str, operation: Operation) -> Any:
        """Carry out one numbered operation of a policy; the same operation again gets the same answer.

        Raises:
            NotFoundError: there is no such policy.
            SequenceError: see :meth:`OpLog.submit`.
        """
        if policy not in self._logs:
            raise NotFoundError(f"there is no policy {policy!r} here: it was closed, or never made")
        # The answer is everybody's who sends this operation: one caller that gives up must not take it from the others.
        return await asyncio.shield(self._logs[policy].submit(operation))

    async def run(self, call: Callable[[], Result]) -> Result:
        """One call on the backend's thread."""
        return await self._worker.run(call)

    def start(self, call: Callable[[], Result]) -> asyncio.Future[Result]:
        """The same, queued before this returns."""
        return self._worker.start(call)

    def pinned(self, policy: str, weights: str, version: int) -> "BrokerSampler":
        """A sampler of weights that a policy has pinned, which are let go with it and after its last call."""
        sampler = BrokerSampler(self._backend, self._worker, self._draw, weights, version, owner=policy)
        unpin: Callable[[], object] = partial(self._backend.unpin, weights)
        if self._drawing is not self._worker:
            unpin = partial(self._worker.post, unpin)
        weakref.finalize(sampler, self._drawing.post, unpin)
        return sampler

    async def forget(self, policy: str) -> None:
        """Close a policy on the backend; its later operations find nobody."""
        await self._worker.run(lambda: self._backend.close_policy(policy))
        self._logs.pop(policy, None)

    def close(self) -> None:
        """Finish what is queued and end the threads."""
        self._drawing.close()
        self._worker.close()

    def _drawn(self, calls: Sequence[Draw]) -> list[list[Completion]]:
        """Samplers of several policies share a batch, and those of one policy have each their own.

        A loop that draws ahead or evaluates beside holds several samplers of one policy. Whether their calls meet in
        one turn depends on how fast the threads are, and what a row shares its batch with shows in its last bits.
        """
        found: dict[int, list[Completion]] = {}
        for places in _apart(calls):
            batch = [calls[place] for place in places]
            drawn = self._backend.sample([call.weights for call in batch], [call.request for call in batch])
            found |= zip(places, drawn, strict=True)
        return [found[place] for place in range(len(calls))]

    async def _opened(self, open_policy: Callable[[str], int]) -> "BrokerPolicy":
        name = f"policy-{next(self._names)}"
        await self._worker.run(lambda: open_policy(name))
        self._logs[name] = OpLog()
        return BrokerPolicy(self, self._backend, name)


class BrokerPolicy:
    """Satisfies ``Policy``. A call takes its number when it is issued, before it first waits."""

    def __init__(self, broker: Broker, backend: Backend, name: str) -> None:
        self._broker = broker
        self._backend = backend
        self.name = name
        self._numbers = itertools.count()

    async def forward(self, data: Sequence[Datum], loss: LossConfig) -> ForwardResult:
        """The loss and log-probabilities, with no gradient."""
        said = partial(digest, "forward", data, loss)
        return await self._submit(said, lambda: self._backend.forward(self.name, data, loss), data)

    async def forward_backward(self, data: Sequence[Datum], loss: LossConfig) -> ForwardResult:
        """Accumulate the gradient of the weighted sum."""
        said = partial(digest, "forward_backward", data, loss)
        return await self._submit(said, lambda: self._backend.forward_backward(self.name, data, loss), data)

    async def optim_step(self, optimizer: AdamW, *, undoable: bool = False) -> OptimResult:
        """Apply the accumulated gradients."""
        said = partial(digest, "optim_step", optimizer, undoable)
        return await self._submit(said, lambda: self._backend.optim_step(self.name, optimizer, undoable=undoable))

    async def undo(self) -> OptimResult:
        """Take the last step back."""
        return await self._submit(partial(digest, "undo"), lambda: self._backend.undo(self.name))

    async def sampler(self) -> "BrokerSampler":
        """A sampler of the weights after every call issued so far."""
        pinned = self._submit(partial(digest, "sampler"), lambda: self._backend.pin(self.name))
        weights, version = await pinned
        return self._broker.pinned(self.name, weights, version)

    async def save(self, name: str, *, optimizer: bool = True) -> Checkpoint:
        """Write a checkpoint."""
        said = partial(digest, "save", name, optimizer)
        return await self._submit(said, lambda: self._backend.save(self.name, name, optimizer=optimizer))

    async def close(self) -> None:
        """Give its memory back once every call issued so far is done."""
        await self._submit(partial(digest, "close"), lambda: None)
        await self._broker.forget(self.name)

    def _submit(
        self, said: Callable[[], str], call: Callable[[], Result], data: Sequence[Datum] = ()
    ) -> Awaitable[Result]:
        # Nobody else has these numbers, so what a call says is hashed only if that ever proves wrong.
        nbytes = sum(datum.tokens.nbytes * (2 + len(datum.streams)) for datum in data)
        operation = Operation(0, next(self._numbers), said, lambda: self._broker.start(call), nbytes)
        return self._broker.submit(self.name, operation)


class BrokerSampler:
    """Satisfies ``Sampler``. Calls issued together are drawn in one batch, those of other policies among them."""

    def __init__(
        self,
        backend: Backend,
        worker: Worker,
        draw: Gatherer[Draw, list[Completion]],
        weights: str,
        version: int,
        *,
        owner: str,
    ) -> None:
        self.policy_version = version
        self._backend = backend
        self._worker = worker
        self._weights = weights
        self._owner = owner
        self._draw = draw
        self._logprobs: dict[float, Gatherer[Tokens, Floats]] = {}
        self._score: Gatherer[Tokens, float] = Gatherer(worker, partial(backend.scores, weights))

    async def sample(self, prompt: Tokens, n: int, params: SamplingParams) -> list[Completion]:
        """Draw ``n`` completions of one prompt."""
        return await self._draw(Draw(self._owner, self._weights, SampleRequest(prompt, n, params)))

    async def logprobs(self, tokens: Tokens, *, temperature: float = 1.0) -> list[float | None]:
        """The log-probability of each token after those before it."""
        if temperature not in self._logprobs:
            read = partial(self._backend.logprobs, self._weights, temperature=temperature)
            self._logprobs[temperature] = Gatherer(self._worker, read)
        found = await self._logprobs[temperature](tokens)
        return [None, *map(float, found[1:])]

    async def score(self, tokens: Tokens) -> float:
        """What the reward head says of a sequence."""
        return await self._score(tokens)


def _apart(calls: Sequence[Draw]) -> list[list[int]]:
    """Places of calls that may share a batch: of each owner, those of one sampler."""
    samplers: dict[str, dict[str, int]] = {}
    batches: dict[int, list[int]] = {}
    for place, call in enumerate(calls):
        own = samplers.setdefault(call.owner, {})
        batches.setdefault(own.setdefault(call.weights, len(own)), []).append(place)
    return list(batches.values())
