"""An ``Engine`` over any backend: order, exactly-once, one thread, and batches."""

import asyncio
import itertools
import weakref
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from fettle.broker.oplog import Operation, OpLog, digest
from fettle.broker.schedule import Gatherer, Worker
from fettle.config import AdamW, LossConfig, PolicySpec, SamplingParams
from fettle.engine.base import Backend, Capabilities, SampleRequest
from fettle.errors import NotFoundError
from fettle.types import Checkpoint, Completion, Datum, Floats, ForwardResult, OptimResult, Tokens

Result = TypeVar("Result")


class Broker:
    """Satisfies ``Engine``. ``submit`` is the same door for callers that bring their own numbers."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._worker = Worker()
        self._logs: dict[str, OpLog] = {}
        self._names = itertools.count()
        self._draw: Gatherer[tuple[str, SampleRequest], list[Completion]] = Gatherer(self._worker, self._drawn)

    async def create_policy(self, spec: PolicySpec) -> "BrokerPolicy":
        """A policy with the weights of ``spec.model``."""
        return await self._opened(lambda name: self._backend.create_policy(name, spec))

    async def load_policy(self, checkpoint: str, *, optimizer: bool) -> "BrokerPolicy":
        """A policy as it was saved."""
        return await self._opened(lambda name: self._backend.load_policy(name, checkpoint, optimizer=optimizer))

    async def sampler(self, weights: str) -> "BrokerSampler":
        """A sampler of a model or of a saved checkpoint."""
        version = await self._worker.run(lambda: self._backend.open(weights))
        return BrokerSampler(self._backend, self._worker, self._draw, weights, version)

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

    def pinned(self, weights: str, version: int) -> "BrokerSampler":
        """A sampler of pinned weights, which are let go with it."""
        sampler = BrokerSampler(self._backend, self._worker, self._draw, weights, version)
        weakref.finalize(sampler, self._worker.post, partial(self._backend.unpin, weights))
        return sampler

    async def forget(self, policy: str) -> None:
        """Close a policy on the backend; its later operations find nobody."""
        await self._worker.run(lambda: self._backend.close_policy(policy))
        self._logs.pop(policy, None)

    def close(self) -> None:
        """Finish what is queued and end the thread."""
        self._worker.close()

    def _drawn(self, calls: Sequence[tuple[str, SampleRequest]]) -> list[list[Completion]]:
        return self._backend.sample([weights for weights, _ in calls], [request for _, request in calls])

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
        said = digest("forward", data, loss)
        return await self._submit(said, lambda: self._backend.forward(self.name, data, loss))

    async def forward_backward(self, data: Sequence[Datum], loss: LossConfig) -> ForwardResult:
        """Accumulate the gradient of the weighted sum."""
        said = digest("forward_backward", data, loss)
        return await self._submit(said, lambda: self._backend.forward_backward(self.name, data, loss))

    async def optim_step(self, optimizer: AdamW, *, undoable: bool = False) -> OptimResult:
        """Apply the accumulated gradients."""
        said = digest("optim_step", optimizer, undoable)
        return await self._submit(said, lambda: self._backend.optim_step(self.name, optimizer, undoable=undoable))

    async def undo(self) -> OptimResult:
        """Take the last step back."""
        return await self._submit(digest("undo"), lambda: self._backend.undo(self.name))

    async def sampler(self) -> "BrokerSampler":
        """A sampler of the weights after every call issued so far."""
        weights, version = await self._submit(digest("sampler"), lambda: self._backend.pin(self.name))
        return self._broker.pinned(weights, version)

    async def save(self, name: str, *, optimizer: bool = True) -> Checkpoint:
        """Write a checkpoint."""
        said = digest("save", name, optimizer)
        return await self._submit(said, lambda: self._backend.save(self.name, name, optimizer=optimizer))

    async def close(self) -> None:
        """Give its memory back once every call issued so far is done."""
        await self._submit(digest("close"), lambda: None)
        await self._broker.forget(self.name)

    def _submit(self, said: str, call: Callable[[], Result]) -> Awaitable[Result]:
        operation = Operation(0, next(self._numbers), said, lambda: self._broker.run(call))
        return self._broker.submit(self.name, operation)


class BrokerSampler:
    """Satisfies ``Sampler``. Calls issued together are drawn in one batch, those of other samplers among them."""

    def __init__(
        self,
        backend: Backend,
        worker: Worker,
        draw: Gatherer[tuple[str, SampleRequest], list[Completion]],
        weights: str,
        version: int,
    ) -> None:
        self.policy_version = version
        self._backend = backend
        self._worker = worker
        self._weights = weights
        self._draw = draw
        self._logprobs: dict[float, Gatherer[Tokens, Floats]] = {}
        self._score: Gatherer[Tokens, float] = Gatherer(worker, partial(backend.scores, weights))

    async def sample(self, prompt: Tokens, n: int, params: SamplingParams) -> list[Completion]:
        """Draw ``n`` completions of one prompt."""
        return await self._draw((self._weights, SampleRequest(prompt, n, params)))

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
