"""A policy that is a run of a service, and what draws from its weights."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import fields
from functools import partial
from typing import Any, TypeVar

import numpy as np

from fettle.calls import Call, Close, Forward, ForwardBackward, OptimStep, Pin, Restore, Save, Undo, call_tree, kind_of
from fettle.client.joined import Joined
from fettle.client.kept import uri_of
from fettle.client.line import Line
from fettle.client.transport import WAIT, Transport, outcome, settled
from fettle.config import AdamW, LossConfig, SamplingParams
from fettle.engine.base import Pooling, ReadRequest, SampleRequest
from fettle.errors import EngineError, NotFoundError
from fettle.frames import Tree, result_of
from fettle.types import Checkpoint, Completion, Datum, Floats, ForwardResult, OptimResult, PromptReading, Tokens

Result = TypeVar("Result")

AT_A_TIME = 4
"""Answers of one policy that are waited for at once: of the calls that were issued first, and end first."""


class HTTPPolicy:
    """Satisfies ``Policy``. A call takes its place in the line when it is issued, before it first waits."""

    def __init__(
        self,
        transport: Transport,
        run_id: str,
        *,
        pinned: Callable[[str, int], Awaitable["HTTPSampler"]],
        noted: Callable[[Checkpoint], Awaitable[Checkpoint]],
    ) -> None:
        self.name = run_id
        self.closed = False
        self._transport = transport
        self._line = Line(transport, run_id)
        self._waits = asyncio.Semaphore(AT_A_TIME)
        self._pinned = pinned
        self._noted = noted

    async def forward(self, data: Sequence[Datum], loss: LossConfig) -> ForwardResult:
        """The loss and log-probabilities, with no gradient."""
        return await self._result(ForwardResult, Forward(data, loss))

    async def forward_backward(self, data: Sequence[Datum], loss: LossConfig) -> ForwardResult:
        """Accumulate the gradient of the weighted sum."""
        return await self._result(ForwardResult, ForwardBackward(data, loss))

    async def optim_step(self, optimizer: AdamW, *, undoable: bool = False, empty: bool = False) -> OptimResult:
        """Apply the accumulated gradients."""
        return await self._result(OptimResult, OptimStep(optimizer, undoable, empty))

    async def undo(self) -> OptimResult:
        """Take the last step back."""
        return await self._result(OptimResult, Undo())

    async def sampler(self) -> "HTTPSampler":
        """A sampler of the weights after every call issued so far."""
        pin = await self._put(Pin())
        return await self._pinned(pin, await self._outcome(pin, shared=True))

    async def save(self, name: str, *, optimizer: bool = True) -> Checkpoint:
        """Write a checkpoint, which the service keeps."""
        return await self._noted(await self._result(Checkpoint, Save(name, optimizer)))

    async def restore(self, checkpoint: str, *, optimizer: bool) -> int:
        """Take up the weights of a checkpoint."""
        return await self._result(int, Restore(uri_of(checkpoint), optimizer))

    async def close(self) -> None:
        """Give its memory back once every call issued so far is done."""
        last = self._put(Close())
        self.closed = True
        await self._outcome(await last)

    async def _result(self, kind: type[Result], call: Call) -> Result:
        found = await self._outcome(await self._put(call))
        if not isinstance(found, kind):
            raise EngineError(f"{kind_of(call)} came to a {type(found).__name__}: the service is of another version")
        return found

    def _put(self, call: Call) -> Awaitable[str]:
        if self.closed:
            raise NotFoundError(f"there is no policy {self.name!r} here: it was closed, or never made")
        said = {"call": call_tree(call)}
        return self._line.put("operations", lambda run: said)

    async def _outcome(self, promise: str, *, shared: bool = False) -> Any:
        async with self._waits:
            return await outcome(self._transport, promise, shared=shared)


class HTTPSampler:
    """Satisfies ``Sampler``. Calls issued in one turn of the event loop are one request."""

    def __init__(self, transport: Transport, sampler_id: str, version: int) -> None:
        self.id = sampler_id
        self.policy_version = version
        self._transport = transport
        self._sample: Joined[SampleRequest, list[Completion]] = Joined(self._drawn)
        self._logprobs: dict[float, Joined[Tokens, list[float | None]]] = {}
        self._score: Joined[Tokens, float] = Joined(self._scored)
        self._read: Joined[ReadRequest, PromptReading] = Joined(self._readings)

    async def sample(self, prompt: Tokens, n: int, params: SamplingParams) -> list[Completion]:
        """Draw ``n`` completions of one prompt."""
        return await self._sample(SampleRequest(prompt, n, params))

    async def logprobs(self, tokens: Tokens, *, temperature: float = 1.0) -> list[float | None]:
        """The log-probability of each token after those before it."""
        if temperature not in self._logprobs:
            self._logprobs[temperature] = Joined(partial(self._logprobs_at, temperature))
        return await self._logprobs[temperature](tokens)

    async def score(self, tokens: Tokens) -> float:
        """What the reward head says of a sequence."""
        return await self._score(tokens)

    async def read(self, request: ReadRequest) -> PromptReading:
        """What the model says at each place of a given sequence."""
        return await self._read(request)

    async def embed(self, tokens: Tokens, *, layer: int = -1, pooling: Pooling = "mean") -> Floats:
        """The states that one layer gives a sequence, as one."""
        said = {"sequences": [_ids(tokens)], "layer": layer, "pooling": pooling}
        (states,) = (await self._asked("embed", said))["embeddings"]
        return np.asarray(states, np.float32)

    async def _drawn(self, requests: Sequence[SampleRequest]) -> list[list[Completion]]:
        said = {"key": f"draw_{secrets.token_hex(8)}", "requests": [_request_tree(request) for request in requests]}
        drawn: list[Completion] = await promised(self._transport, f"/v1/samplers/{self.id}/sample", said)
        found = iter(drawn)
        return [[next(found) for _ in range(request.n)] for request in requests]

    async def _logprobs_at(self, temperature: float, sequences: Sequence[Tokens]) -> list[list[float | None]]:
        said = {"sequences": [_ids(tokens) for tokens in sequences], "temperature": temperature}
        rows = (await self._asked("logprobs", said))["logprobs"]
        return [[None, *map(float, row[1:])] for row in rows]

    async def _scored(self, sequences: Sequence[Tokens]) -> list[float]:
        said = {"sequences": [_ids(tokens) for tokens in sequences]}
        return [float(score) for score in (await self._asked("score", said))["scores"]]

    async def _readings(self, requests: Sequence[ReadRequest]) -> list[PromptReading]:
        said = [{field.name: getattr(each, field.name) for field in fields(each)} for each in requests]
        for each in said:
            each["tokens"] = _ids(each["tokens"])
        return [result_of(reading) for reading in (await self._asked("read", {"requests": said}))["readings"]]

    async def _asked(self, what: str, said: Mapping[str, Tree]) -> Any:
        return await self._transport.post(f"/v1/samplers/{self.id}/{what}", said)


async def promised(transport: Transport, path: str, said: Mapping[str, Tree], *, wait: float = WAIT) -> Any:
    """What comes of something that the service promises, and answers at once where it is soon done."""
    answer = await transport.request("POST", path, said, wait=wait)
    if answer.status == 202:
        return await outcome(transport, answer.tree["id"])
    transport.read.add(answer.tree["id"])
    return settled(answer.tree)


def _request_tree(request: SampleRequest) -> dict[str, Tree]:
    params = request.params.model_dump(mode="json", exclude_defaults=True)
    return {"prompt": _ids(request.prompt), "n": request.n, "params": params}


def _ids(tokens: Tokens) -> list[int]:
    return [int(token) for token in tokens]
