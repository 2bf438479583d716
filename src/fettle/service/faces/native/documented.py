"""Documented losses over columnar batches: lowered here, and carried out as numbered operations.

What a batch leaves out is first read from the models. Readings of the policy itself are operations with numbers of
their own, before that of the gradient: sent again, all of them are known again, whatever happened in between.
"""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, cast

from fettle.broker import Promise
from fettle.broker.columnar import DocumentedResult, Trainee, forward_backward
from fettle.broker.samplers import BrokerSampler
from fettle.calls import Call, Forward, ForwardBackward
from fettle.config import LossConfig
from fettle.engine.base import Engine, Policy, Sampler
from fettle.errors import ConfigError, DataError, NotFoundError
from fettle.frames import Tree, packed
from fettle.service.callers import Caller
from fettle.service.checkpoints import SCHEME
from fettle.service.core import Service
from fettle.service.entries import Run
from fettle.service.faces.native.bodies import Batch
from fettle.service.readings import Readings
from fettle.types import Datum, ForwardResult, Tokens

KEPT = 4096
"""Results that are known by their documented names; of older ones the engine's own names are told."""

FORWARD = "forward"
"""What a reference's log-probabilities are charged as: the policy's own are."""

Submit = Callable[[int | None, Call, str], Promise]


class Documented:
    """The documented results of operations."""

    def __init__(self) -> None:
        self._results: OrderedDict[str, asyncio.Task[DocumentedResult]] = OrderedDict()

    async def promised(self, service: Service, caller: Caller, run: Run, body: Batch) -> Promise:
        """The promise of a documented loss's gradient.

        Raises:
            ConfigError: there is no such loss, setting or reference.
            LossInputError: the batch is not of the loss's format.
        """
        if not isinstance(body.batch_data, Mapping):
            raise DataError("batch_data must be a mapping of columns by name, such as input_ids")
        said = await asyncio.to_thread(_digest, body)

        def submit(seq: int | None, call: Call, part: str) -> Promise:
            return service.submit(caller, run.id, body.incarnation, seq, call, digest=f"{said}/{part}")

        policy = _Numbered(submit, body.seq)
        spec = run.spec.model_copy(update={"model": _path(service, caller, str(run.spec.model))})
        trainee = Trainee(cast(Engine, _Engine(service, run)), cast(Policy, policy), spec)
        settings = dict(body.loss_kwargs)
        if isinstance(named := settings.get("reference_model"), str):
            settings["reference_model"] = _path(service, caller, named)
        task = asyncio.ensure_future(forward_backward(trainee, body.batch_data, str(body.loss_fn), settings))
        task.add_done_callback(policy.ended)
        promise = await asyncio.shield(policy.gradient)
        self._results[promise.id] = task
        while len(self._results) > KEPT:
            self._results.popitem(last=False)
        return promise

    def result(self, promise: Promise) -> dict[str, Tree] | None:
        """What a promise came to by its documented names, if it is one of a documented loss."""
        task = self._results.get(promise.id)
        if task is None or not task.done() or task.exception() is not None:
            return None
        return asdict(task.result())


class _Numbered:
    """What ``forward_backward`` asks of a policy, each call with a number."""

    def __init__(self, submit: Submit, seq: int | None) -> None:
        self._submit = submit
        self._next = seq
        self._calls = 0
        self.gradient: asyncio.Future[Promise] = asyncio.get_running_loop().create_future()
        """The promise of the gradient, once it is submitted."""

    async def forward(self, data: Sequence[Datum], loss: LossConfig) -> ForwardResult:
        """A reading."""
        found: ForwardResult = await self._put(Forward(data, loss)).result()
        return found

    async def forward_backward(self, data: Sequence[Datum], loss: LossConfig) -> ForwardResult:
        """The gradient."""
        promise = self._put(ForwardBackward(data, loss))
        self.gradient.set_result(promise)
        found: ForwardResult = await promise.result()
        return found

    def ended(self, task: "asyncio.Task[Any]") -> None:
        """Tell whoever waits for the gradient that there will be none."""
        error = None if task.cancelled() else task.exception()
        if not self.gradient.done() and error is not None:
            self.gradient.set_exception(error)

    def _put(self, call: Call) -> Promise:
        promise = self._submit(self._next, call, str(self._calls))
        self._calls += 1
        self._next = None if self._next is None else self._next + 1
        return promise


class _Engine:
    """What ``forward_backward`` asks of an engine: models that are only read, for whose run it is."""

    def __init__(self, service: Service, run: Run) -> None:
        self._service = service
        self._run = run

    async def sampler(self, weights: str) -> Sampler:
        """A reference's."""
        live = await self._service.broker.sampler(weights)
        return cast(Sampler, _Reference(self._service.readings, self._run, live))


class _Reference:
    """A sampler that is asked for log-probabilities, which the run pays for as it does for its own."""

    def __init__(self, readings: Readings, run: Run, live: BrokerSampler) -> None:
        self._readings = readings
        self._run = run
        self._live = live

    async def logprobs(self, tokens: Tokens, *, temperature: float = 1.0) -> list[float | None]:
        """Computed, and charged."""
        tenant, run = self._run.tenant, self._run.id
        with self._readings.charged(tenant, self._live, len(tokens), run=run, kind=FORWARD) as live:
            return await live.logprobs(tokens, temperature=temperature)


def _digest(body: Batch) -> str:
    return hashlib.sha256(packed([body.batch_data, body.loss_fn, body.loss_kwargs])).hexdigest()[:24]


def _path(service: Service, caller: Caller, named: str) -> str:
    """Where the weights of a served model or of a checkpoint lie."""
    try:
        if named.startswith(SCHEME):
            return service.checkpoint(caller, named).path
        return service.models.named(named).path
    except NotFoundError as error:
        raise ConfigError(f"reference_model: {error.message}") from error
