"""A training service's documented client, in this process: runs, and the four verbs on each.

Every verb begins when it is called, and verbs of one run are carried out in the order called; what they return is
awaited for the result.
"""

import asyncio
import itertools
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar

from transformers import AutoTokenizer

from fettle.broker import Broker
from fettle.broker.columnar import Trainee, forward_backward
from fettle.broker.documented import settings_of
from fettle.config import AdamW, LocalEngine, PolicySpec, SamplingParams
from fettle.config.arguments import RUN_ARGUMENTS, settings_from
from fettle.config.explain import shown
from fettle.engine import Engine
from fettle.engine.local import LocalBackend
from fettle.errors import ConfigError, LossInputError, ModelError, NotFoundError, did_you_mean
from fettle.randomness import key

Result = TypeVar("Result")


class TrainingClient:
    """One run: a policy, its optimizer's settings, and how many steps it has behind it."""

    def __init__(self, run_id: str, trainee: Trainee, optimizer: AdamW) -> None:
        self.run_id = run_id
        self.step = 0
        """Optimizer steps made."""
        self._trainee = trainee
        self._optimizer = optimizer
        self._order = asyncio.Lock()
        self._draws = itertools.count()
        self._running: set[asyncio.Future[Any]] = set()

    def forward_backward(
        self, batch_data: Mapping[str, object], loss_fn: str, loss_kwargs: Mapping[str, object] | None = None
    ) -> Awaitable[dict[str, Any]]:
        """Add the gradient of a loss over a batch of the format that is documented for it.

        The result has ``loss``, ``metrics`` under their documented names, and ``step``. ``grad_norm`` is None: it is
        that of all gradients since the last step, and ``optim_step`` tells it.

        Raises:
            ConfigError: there is no such loss or keyword.
            LossInputError: the batch is not of the loss's format.
        """
        if not isinstance(batch_data, Mapping):
            raise LossInputError(
                f"batch_data is {shown(batch_data)}: give a mapping of names to arrays, such as "
                "{'input_ids': [[11, 12]], 'attention_mask': [[1, 1]]}"
            )
        if not isinstance(loss_kwargs, Mapping | None):
            raise ConfigError(f"loss_kwargs is {shown(loss_kwargs)}: give a mapping of the loss's settings by name")
        settings_of(loss_fn, loss_kwargs or {})  # here, where the caller's own line can be named

        async def carried_out() -> dict[str, Any]:
            result = await forward_backward(self._trainee, batch_data, loss_fn, loss_kwargs or {})
            return {"loss": result.loss, "metrics": result.metrics, "step": self.step, "grad_norm": None}

        return self._in_order(carried_out)

    def optim_step(self, learning_rate: float | None = None) -> Awaitable[dict[str, Any]]:
        """Apply the gradients and clear them; a ``learning_rate`` stays for later steps too.

        Raises:
            ConfigError: there is no such rate.
        """
        given = {} if learning_rate is None else {"learning_rate": learning_rate}
        chosen = settings_from("optim_step", AdamW, self._optimizer.model_dump() | given)

        async def carried_out() -> dict[str, Any]:
            if learning_rate is not None:
                self._optimizer = chosen
            stepped = await self._trainee.policy.optim_step(self._optimizer)
            self.step += 1
            metrics = {"grad_norm": stepped.grad_norm, "skipped": float(stepped.skipped)}
            rate = self._optimizer.learning_rate
            return {"step": self.step, "learning_rate": rate, "grad_norm": stepped.grad_norm, "metrics": metrics}

        return self._in_order(carried_out)

    def sample(
        self,
        prompts: Sequence[str | Sequence[int]],
        max_tokens: int = 512,
        temperature: float = 0.7,
        top_p: float = 0.9,
        return_logprobs: bool = False,
    ) -> Awaitable[dict[str, Any]]:
        """Complete prompts, texts or token ids, with the weights as they are after every call made so far.

        The result has ``outputs`` (texts), ``token_ids``, the ``policy_version`` that drew them, and ``logprobs``
        under the distribution that was drawn from, where they are asked for.

        Raises:
            ConfigError: nothing can be drawn so.
        """
        given = {"max_tokens": max_tokens, "temperature": temperature, "top_p": top_p}
        params = settings_from("sample", SamplingParams, given)
        number = next(self._draws)

        async def carried_out() -> dict[str, Any]:
            tokenizer = AutoTokenizer.from_pretrained(self._trainee.spec.model)
            sampler = await self._trainee.policy.sampler()
            ids = [tokenizer.encode(prompt) if isinstance(prompt, str) else list(prompt) for prompt in prompts]
            drawn = await asyncio.gather(
                *(
                    sampler.sample(
                        prompt,
                        1,
                        params.model_copy(update={"seed": key(self._trainee.spec.seed, "sample", number, row)}),
                    )
                    for row, prompt in enumerate(ids)
                )
            )
            completions = [completion for (completion,) in drawn]
            found = {
                "outputs": [tokenizer.decode(c.tokens, skip_special_tokens=True) for c in completions],
                "token_ids": [c.tokens for c in completions],
                "policy_version": sampler.policy_version,
            }
            return found | ({"logprobs": [c.logprobs for c in completions]} if return_logprobs else {})

        return self._in_order(carried_out)

    def save_state(self, name: str | None = None) -> Awaitable[dict[str, Any]]:
        """Write the policy with its optimizer, as ``name`` or by the number of its step. Names are never reused."""

        async def carried_out() -> dict[str, Any]:
            saved = await self._trainee.policy.save(name or f"{self.run_id}-step-{self.step:06d}")
            return {"checkpoint_path": saved.path, "name": saved.name, "digest": saved.digest, "step": self.step}

        return self._in_order(carried_out)

    def _in_order(self, carried_out: Callable[[], Coroutine[Any, Any, Result]]) -> Awaitable[Result]:
        async def in_turn() -> Result:
            async with self._order:
                return await carried_out()

        # A task runs from now on, whoever awaits it; tasks reach the lock in the order they are made.
        task = asyncio.ensure_future(in_turn())
        self._running.add(task)  # the event loop alone would not keep it alive
        task.add_done_callback(self._running.discard)
        return task


class SignalClient:
    """Runs on one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._runs: dict[str, TrainingClient] = {}

    async def create_run(
        self,
        base_model: str,
        *,
        lora_r: int | None = 32,
        lora_alpha: float = 32.0,
        lora_dropout: float = 0.0,
        learning_rate: float = 3e-4,
        weight_decay: float = 0.01,
        head: Literal["value", "reward"] | None = "value",
        seed: int = 0,
    ) -> str:
        """A new run of a model, by its id. ``lora_r=None`` trains all weights.

        A ``value`` head is what ``enhanced_ppo`` learns its critic in, and a ``reward`` head is what
        ``reward_modeling`` trains; other losses do not touch a head.

        Raises:
            ConfigError: an argument cannot be what it is.
            ModelError: the model cannot be loaded, or is the folder of a run, which has several.
        """
        lora = None if lora_r is None else {"rank": lora_r, "alpha": lora_alpha, "dropout": lora_dropout}
        policy_given = {"model": base_model, "lora": lora, "head": head, "seed": seed}
        spec = settings_from("create_run", PolicySpec, policy_given, RUN_ARGUMENTS)
        rates_given = {"learning_rate": learning_rate, "weight_decay": weight_decay}
        optimizer = settings_from("create_run", AdamW, rates_given)
        _check_no_run_folder(base_model)
        policy = await self._engine.create_policy(spec)
        run_id = f"run_{secrets.token_hex(8)}"
        self._runs[run_id] = TrainingClient(run_id, Trainee(self._engine, policy, spec), optimizer)
        return run_id

    def get_training_client(self, run_id: str) -> TrainingClient:
        """The verbs of a run.

        Raises:
            NotFoundError: there is no such run.
        """
        if run_id not in self._runs:
            near = did_you_mean(run_id, self._runs)
            raise NotFoundError(f"there is no run {run_id!r} here: create_run makes one{near}")
        return self._runs[run_id]


def _check_no_run_folder(base_model: str) -> None:
    folder = Path(base_model)
    if not (folder / "config.yaml").is_file():
        return
    saved = sorted(folder.glob("checkpoints/*")) or sorted(folder.glob("*/checkpoints/*"))
    names = ", ".join(map(str, saved))
    which = f"one of its checkpoints, {names}" if saved else "a model, for it has no checkpoint yet"
    raise ModelError(f"create_run, base_model: {base_model} is the folder of a run: give {which}")


@contextmanager
def local_client(checkpoints: Path, *, engine: LocalEngine | None = None) -> Iterator[SignalClient]:
    """A client of an engine in this process, which saves into ``checkpoints`` and ends with the block."""
    broker = Broker(LocalBackend(engine or LocalEngine(), checkpoints=checkpoints))
    try:
        yield SignalClient(broker)
    finally:
        broker.close()
