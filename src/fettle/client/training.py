"""One run of a service: the documented verbs, each a future, carried out in the order in which they are called."""

import itertools
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np

from fettle.calls import Call, OptimStep, Pin, Restore, Save, call_tree
from fettle.client.futures import Future
from fettle.client.kept import uri_of
from fettle.client.line import Line
from fettle.client.policy import HTTPSampler
from fettle.client.sampling import SamplingClient
from fettle.client.transport import Transport, outcome
from fettle.config import AdamW, LossConfig, SamplingParams
from fettle.config.arguments import settings_from
from fettle.config.explain import shown
from fettle.errors import ConfigError, LossInputError, NotFoundError
from fettle.frames import Tree, batch_tree
from fettle.randomness import key
from fettle.types import Checkpoint, Datum, ForwardResult, OptimResult

Owner = TypeVar("Owner")
Result = TypeVar("Result")
Arguments = ParamSpec("Arguments")

RATES = ("learning_rate", "weight_decay")
"""Settings of the optimizer that a run was made with, and that stand in its metadata."""

AHEAD = 4
"""Steps of an epoch that are sent before the first of them is done."""


def submitting(
    verb: Callable[Concatenate[Owner, Arguments], Future[Result]],
) -> Callable[Concatenate[Owner, Arguments], Coroutine[Any, Any, Future[Result]]]:
    """The verb as a coroutine of its own: the first await is for being taken in, and gives the future."""

    async def submitted(owner: Owner, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Future[Result]:
        return await verb(owner, *args, **kwargs).submitted()

    submitted.__doc__ = f"The future of ``{verb.__name__}``, once the service has taken it in."
    return submitted


class TrainingClient:
    """The verbs of one run. Each begins when it is called; what it gives is awaited for the result."""

    def __init__(self, transport: Transport, run_id: str, *, take_over: bool = True) -> None:
        self.run_id = run_id
        self._transport = transport
        self._shared = not take_over
        self._line = Line(transport, run_id, take_over=take_over, shared=self._shared)
        self._rate: float | None = None
        self._steps = 0
        """Sent from here."""
        self._draws = itertools.count()

    def forward_backward(
        self,
        batch_data: Mapping[str, object] | Sequence[Datum],
        loss_fn: str | LossConfig,
        loss_kwargs: Mapping[str, object] | None = None,
    ) -> Future[dict[str, Any]]:
        """Add the gradient of a loss: one that is documented, over a batch of its format, or one of ours over data.

        The result has ``loss``, ``metrics`` by name, ``step``, and ``grad_norm``, which is None: it is that of all
        gradients since the last step, and ``optim_step`` tells it. A loss of ours gives ``logprobs`` too.

        Raises:
            ConfigError: there is no such loss or keyword.
            LossInputError: the batch is not of the loss's format.
        """
        return self._evaluated("forward_backward", _batch(batch_data, loss_fn, loss_kwargs))

    def forward(
        self, data: Sequence[Datum], loss_fn: str | LossConfig, loss_kwargs: Mapping[str, object] | None = None
    ) -> Future[dict[str, Any]]:
        """A loss of ours and the log-probabilities, with no gradient."""
        return self._evaluated("forward", _batch(data, loss_fn, loss_kwargs))

    def optim_step(self, learning_rate: float | None = None) -> Future[dict[str, Any]]:
        """Apply the gradients and clear them; a ``learning_rate`` stays for later steps too.

        Raises:
            ConfigError: there is no such rate.
        """
        chosen: list[AdamW] = []  # by its turn, when the rates that the run was made with are known

        def said(run: Mapping[str, Tree]) -> dict[str, Tree]:
            if not chosen:
                chosen.append(_optimizer_of(run, rate))
            return {"call": call_tree(OptimStep(chosen[0]))}

        async def answered(promise: str) -> dict[str, Any]:
            stepped: OptimResult = await self._outcome(promise)
            metrics = {"grad_norm": stepped.grad_norm, "skipped": float(stepped.skipped)}
            told = {"step": stepped.policy_version, "learning_rate": chosen[0].learning_rate}
            return {**told, "grad_norm": stepped.grad_norm, "metrics": metrics}

        if learning_rate is not None:
            settings_from("optim_step", AdamW, {"learning_rate": learning_rate})
            self._rate = learning_rate
        rate = self._rate
        self._steps += 1
        return Future(self._transport, self._line.put("operations", said), answered)

    def sample(
        self,
        prompts: Sequence[str | Sequence[int]],
        max_tokens: int = 512,
        temperature: float = 0.7,
        top_p: float = 0.9,
        return_logprobs: bool = False,
    ) -> Future[dict[str, Any]]:
        """Complete prompts, texts or token ids, with the weights as they are after every call made so far.

        The result has ``outputs`` (texts), ``token_ids``, the ``policy_version`` that drew them, and ``logprobs``
        under the distribution that was drawn from, where they are asked for.

        Raises:
            ConfigError: nothing can be drawn so.
        """
        given = {"max_tokens": max_tokens, "temperature": temperature, "top_p": top_p}
        params = settings_from("sample", SamplingParams, given)
        number = next(self._draws)

        async def answered(pin: str) -> dict[str, Any]:
            sampler = HTTPSampler(self._transport, pin, await outcome(self._transport, pin, shared=True))
            client = SamplingClient(self._transport, sampler, self._line.run["base_model"])
            seed = self._line.run["spec"]["seed"]
            seeds = [key(seed, "sample", number, row) for row in range(len(prompts))]
            try:
                drawn = await client.drawn(prompts, [params.model_copy(update={"seed": own}) for own in seeds])
                return await client.told(drawn, return_logprobs=return_logprobs)
            finally:
                with suppress(NotFoundError):  # it was let go beside us
                    await self._transport.request("DELETE", f"/v1/samplers/{pin}")

        return self._operation(Pin(), answered)

    def save_state(self, name: str | None = None) -> Future[dict[str, Any]]:
        """Write the policy with its optimizer, as ``name`` or by the number of its step. Names are never reused."""
        steps = self._steps

        def said(run: Mapping[str, Tree]) -> dict[str, Tree]:
            return {"call": call_tree(Save(name or f"step-{run['version'] + steps:06d}"))}

        async def answered(promise: str) -> dict[str, Any]:
            saved: Checkpoint = await self._outcome(promise)
            told = {"checkpoint_path": saved.path, "name": saved.name, "digest": saved.digest}
            return {**told, "step": saved.policy_version}

        return Future(self._transport, self._line.put("operations", said), answered)

    def load_state(self, checkpoint: str, *, optimizer: bool = True) -> Future[dict[str, Any]]:
        """Take up the weights of a checkpoint of this kind of policy, with its optimizer or without."""

        async def answered(promise: str) -> dict[str, Any]:
            return {"step": await self._outcome(promise)}

        return self._operation(Restore(uri_of(checkpoint), optimizer), answered)

    async def train_batch(
        self,
        batch_data: Mapping[str, object] | Sequence[Datum],
        loss_fn: str | LossConfig,
        loss_kwargs: Mapping[str, object] | None = None,
        *,
        learning_rate: float | None = None,
    ) -> dict[str, Any]:
        """A gradient and a step: what the loss came to, with the step's ``grad_norm``, number and rate."""
        loss, stepped = self._step(batch_data, loss_fn, loss_kwargs, learning_rate)
        return _joint(await loss, await stepped)

    async def train_epoch(
        self,
        batches: Iterable[Mapping[str, object] | Sequence[Datum]],
        loss_fn: str | LossConfig,
        loss_kwargs: Mapping[str, object] | None = None,
        *,
        learning_rate: float | None = None,
    ) -> AsyncIterator[dict[str, Any]]:
        """What each batch came to, as it is done; a few batches are sent ahead, so that the service never waits.

        Raises:
            FettleError: a batch was refused; those sent ahead of it are carried out all the same.
        """
        sent: deque[tuple[Future[dict[str, Any]], Future[dict[str, Any]]]] = deque()
        for batch in batches:
            sent.append(self._step(batch, loss_fn, loss_kwargs, learning_rate))
            if len(sent) > AHEAD:
                loss, stepped = sent.popleft()
                yield _joint(await loss, await stepped)
        for loss, stepped in sent:
            yield _joint(await loss, await stepped)

    async def batch_sample(
        self, prompts: Sequence[str | Sequence[int]], *, batch_size: int = 64, **settings: Any
    ) -> dict[str, Any]:
        """Any number of prompts, drawn ``batch_size`` at a time with the weights as they are now, as one result."""
        parts = [self.sample(prompts[at : at + batch_size], **settings) for at in range(0, len(prompts), batch_size)]
        results = [await part for part in parts]
        joint: dict[str, Any] = {}
        for result in results:
            for name, value in result.items():
                joint[name] = [*joint.get(name, []), *value] if isinstance(value, list) else value
        return joint

    async def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of texts, with none put around them."""
        return list((await self._of_model("tokenize", {"text": list(texts)}))["tokens"])

    async def detokenize(self, sequences: Sequence[Sequence[int]]) -> list[str]:
        """The texts of tokens."""
        said = {"tokens": [[int(token) for token in tokens] for tokens in sequences]}
        return list((await self._of_model("detokenize", said))["text"])

    async def apply_chat_template(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """The tokens of a conversation, up to where the model's own reply begins."""
        said = {"messages": [dict(message) for message in messages]}
        return list((await self._of_model("chat_template", said))["tokens"])

    async def status(self) -> dict[str, Any]:
        """The run as the service knows it: its state, version, settings and times."""
        return dict(await self._transport.get(f"/v1/runs/{self.run_id}"))

    async def metrics(self, *, after: int = -1) -> list[dict[str, Any]]:
        """The rows of the steps after one, oldest first."""
        return await self._transport.whole(f"/v1/runs/{self.run_id}/metrics", "rows", after=after)

    async def pause(self) -> dict[str, Any]:
        """Have it give its memory back; ``resume`` goes on to the same bits."""
        return await self._moved("pause")

    async def resume(self) -> dict[str, Any]:
        """Go on after a pause."""
        return await self._moved("resume")

    async def complete(self) -> dict[str, Any]:
        """End it; its checkpoints stay."""
        return await self._moved("complete")

    forward_backward_async = submitting(forward_backward)
    forward_async = submitting(forward)
    optim_step_async = submitting(optim_step)
    sample_async = submitting(sample)
    save_state_async = submitting(save_state)
    load_state_async = submitting(load_state)

    async def _outcome(self, promise: str) -> Any:
        return await outcome(self._transport, promise, shared=self._shared)

    def _operation(self, call: Call, answered: Callable[[str], Awaitable[dict[str, Any]]]) -> Future[dict[str, Any]]:
        said = {"call": call_tree(call)}
        return Future(self._transport, self._line.put("operations", lambda run: said), answered)

    def _evaluated(self, verb: str, said: Mapping[str, Tree]) -> Future[dict[str, Any]]:
        steps = self._steps

        async def answered(promise: str) -> dict[str, Any]:
            told = _told_loss(await self._outcome(promise))
            return {**told, "step": self._line.run["version"] + steps, "grad_norm": None}

        return Future(self._transport, self._line.put(verb, lambda run: said), answered)

    def _step(
        self,
        batch_data: Mapping[str, object] | Sequence[Datum],
        loss_fn: str | LossConfig,
        loss_kwargs: Mapping[str, object] | None,
        learning_rate: float | None,
    ) -> tuple[Future[dict[str, Any]], Future[dict[str, Any]]]:
        return self.forward_backward(batch_data, loss_fn, loss_kwargs), self.optim_step(learning_rate)

    async def _moved(self, move: str) -> dict[str, Any]:
        return dict(await self._transport.post(f"/v1/runs/{self.run_id}/{move}"))

    async def _of_model(self, what: str, said: Mapping[str, Tree]) -> Any:
        model = (await self.status())["base_model"]
        return await self._transport.post(f"/v1/{what}", {"model": model, **said})


def _batch(
    batch_data: Mapping[str, object] | Sequence[Datum],
    loss_fn: str | LossConfig,
    loss_kwargs: Mapping[str, object] | None,
) -> dict[str, Tree]:
    """What a loss over a batch says: documented columns as they are, or data of ours."""
    if not isinstance(loss_kwargs, Mapping | None):
        raise ConfigError(f"loss_kwargs is {shown(loss_kwargs)}: give a mapping of the loss's settings by name")
    if isinstance(batch_data, Mapping):
        if not isinstance(loss_fn, str):
            raise ConfigError("loss_fn is a loss of ours, and batch_data columns: give data, or a documented name")
        columns = {str(name): _column(name, values) for name, values in batch_data.items()}
        return {"batch_data": columns, "loss_fn": loss_fn, "loss_kwargs": dict(loss_kwargs or {})}
    if not (isinstance(batch_data, Sequence) and all(isinstance(datum, Datum) for datum in batch_data)):
        raise LossInputError(
            f"batch_data is {shown(batch_data)}: give a mapping of names to arrays, such as "
            "{'input_ids': [[11, 12]], 'attention_mask': [[1, 1]]}, or a list of Datum"
        )
    settings = {"type": loss_fn, **(loss_kwargs or {})} if isinstance(loss_fn, str) else loss_fn.model_dump(mode="json")
    return {"data": batch_tree(batch_data), "loss": settings}


def _column(name: str, values: object) -> Tree:
    """A documented column, whatever library it comes from; rows of unlike lengths stay as they are."""
    try:
        array = np.asarray(values)
    except (ValueError, TypeError):
        return values
    if array.dtype.kind in "iub":
        return array.astype(np.int64)
    if array.dtype.kind != "f":
        raise LossInputError(f"batch_data has {name} of {array.dtype}: numbers are needed")
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float32)


def _joint(loss: dict[str, Any], stepped: dict[str, Any]) -> dict[str, Any]:
    return {**loss, **{name: value for name, value in stepped.items() if name != "metrics"}}


def _optimizer_of(run: Mapping[str, Tree], rate: float | None) -> AdamW:
    """The optimizer that the run was made with; a ``rate`` in the place of its own."""
    rates = {name: float(run["metadata"][name]) for name in RATES if name in run["metadata"]}
    return AdamW(**(rates | ({} if rate is None else {"learning_rate": rate})))


def _told_loss(result: Any) -> dict[str, Any]:
    """A documented loss's result as it is; that of one of ours under the same names."""
    if not isinstance(result, ForwardResult):
        return dict(result)
    return {
        "loss": result.loss,
        "metrics": result.metrics,
        "logprobs": result.logprobs,
        "num_tokens": result.num_tokens,
    }
