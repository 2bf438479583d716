"""One policy as the local engine holds it: weights, adapter, optimizer, version, and the pins on its past."""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from fettle import losses
from fettle.config import AdamW, LossConfig, PolicySpec, Reading
from fettle.engine.local import checkpoint, step
from fettle.engine.local.flat import Flat
from fettle.engine.local.forward import Voice
from fettle.engine.local.generators import generator
from fettle.engine.local.head import Head, has_head
from fettle.engine.local.lora import Adapter, read_adapter, write_adapter
from fettle.engine.local.memory import enough_memory
from fettle.engine.local.model import LanguageModel, new_head
from fettle.engine.local.optimizer import Optimizer
from fettle.errors import CheckpointError, ConfigError, EngineError
from fettle.types import Checkpoint, Datum, ForwardResult, OptimResult

STATE = "policy.json"
OPTIMIZER = "optimizer.safetensors"

FEWER = "train fewer weights (policy.lora, a lower lora.rank), or a smaller model"
"""What helps where weights, gradients and moments do not fit."""


class LocalPolicy:
    """Weights that are trained: an adapter in a shared frozen model, or a whole model of its own."""

    def __init__(self, spec: PolicySpec, model: LanguageModel, *, version: int = 0) -> None:
        self.spec = spec
        self.model = model
        self.version = version
        self._adapter: Adapter | None = None
        if spec.lora is not None:
            self._adapter = model.slots.adapter(spec.lora, seed=spec.seed)
        self.head: Head | None = new_head(model) if spec.head is not None else None
        trained = self._adapter.parameters if self._adapter else model.parameters
        self._parameters = {**trained, **(self.head.parameters if self.head else {})}
        self._flat = Flat(self._parameters)
        self._optimizer = Optimizer(self._flat)
        self._calls = 0
        self._pins: dict[str, int] = {}
        self._past: dict[int, dict[str, Tensor]] = {}
        self._before: tuple[Tensor, dict[str, Tensor]] | None = None

    def forward(self, data: Sequence[Datum], loss: LossConfig, *, budget: int) -> ForwardResult:
        """The loss and log-probabilities, with no gradient and no dropout."""
        self._check_head(loss)
        with torch.no_grad(), self.model.slots.holding(self._adapter):
            return step.run(self.model, data, loss, budget=budget, backward=None, head=self.head)

    def forward_backward(self, data: Sequence[Datum], loss: LossConfig, *, budget: int) -> ForwardResult:
        """Add the gradient of the call; a call that raises adds nothing.

        Raises:
            ConfigError: the loss reads a head that the policy does not have, or is none to learn from.
        """
        self._check_head(loss)
        if isinstance(loss, Reading):
            raise ConfigError("reading is no loss, and has no gradient: use forward")
        random = generator(self.spec.seed, "dropout", self.version, self._calls, device=self.model.device)

        with (
            enough_memory("for gradients", FEWER),
            self._flat.all_or_nothing(),
            self.model.slots.holding(self._adapter, random=random),
        ):
            result = step.run(self.model, data, loss, budget=budget, backward=Tensor.backward, head=self.head)
        self._calls += 1
        return result

    def optim_step(self, settings: AdamW, *, undoable: bool = False) -> OptimResult:
        """Step. The version counts steps, skipped ones too, so that it is also the number of steps asked for.

        An ``undoable`` step keeps one copy of weights and moments, until the next step or until it is undone.

        Raises:
            EngineError: no gradient was accumulated, or there is not enough memory; everything is as it was then.
        """
        if not self._calls:
            raise EngineError("optim_step has no gradient to apply: call forward_backward first")
        start = time.perf_counter()
        with enough_memory("for a step of the optimizer", FEWER):
            self._keep_pinned()
            before = (self._flat.values.clone(), self._optimizer.copy()) if undoable else None
            norm, moved = self._optimizer.step(settings)
        self._before = before
        self.version += 1
        self._calls = 0
        return OptimResult(self.version, norm, skipped=not moved, seconds=time.perf_counter() - start)

    def undo(self) -> OptimResult:
        """Put weights and moments back to before the last step. The version goes up: these are weights again, but anew.

        Raises:
            EngineError: the last step was not undoable, or gradients were accumulated since, or there is not enough
                memory; everything is as it was then.
        """
        if self._before is None or self._calls:
            raise EngineError("there is no step to undo: make it with undoable=True, and undo it before the next call")
        start = time.perf_counter()
        with enough_memory("to undo a step", FEWER):
            self._keep_pinned()
        weights, moments = self._before
        self._flat.values.copy_(weights)
        self._optimizer.put_back(moments)
        self._before = None
        self.version += 1
        return OptimResult(self.version, 0.0, seconds=time.perf_counter() - start)

    def _keep_pinned(self) -> None:
        """Copy today's weights where a sampler reads them, before they change."""
        if self.version in self._pins.values():
            self._keep()

    def _keep(self) -> None:
        if self.version not in self._past:
            self._past[self.version] = self._flat.views(self._flat.values.clone())

    def _check_head(self, loss: LossConfig) -> None:
        if isinstance(loss, Reading) and loss.of == "scores" and self.spec.head is not None:
            return  # at its last token a sequence can be read with either head
        for output, head in (("values", "value"), ("scores", "reward")):
            if output in losses.model_outputs(loss) and self.spec.head != head:
                raise ConfigError(
                    f"the loss {loss.type} reads {output}, and this policy has no {head} head: "
                    f"create it with head: {head}"
                )

    def pin(self, name: str, *, copied: bool = False) -> None:
        """Keep today's weights reachable as ``name``.

        They are copied when the next step comes; at once with ``copied``, so that another thread may read them.

        Raises:
            EngineError: there is not enough memory for a copy, and nothing is pinned.
        """
        if copied:
            with enough_memory(
                "for a copy of the weights that a sampler reads", f"{FEWER}, or unset engine.sampling_threads"
            ):
                self._keep()
        self._pins[name] = self.version

    def unpin(self, name: str) -> None:
        """Let them go; a copy nobody else holds is dropped."""
        version = self._pins.pop(name)
        if version not in self._pins.values():
            self._past.pop(version, None)

    def voice(self, name: str) -> Voice:
        """The weights of ``name`` beside the model: the copy that was kept of them, or today's own."""
        version = self._pins[name]
        past = self._past.get(version)
        if self._adapter is None:
            return Voice(version, tensors=past)
        return Voice(version, adapter=self._adapter if past is None else self._adapter.holding(past))

    @contextmanager
    def as_pinned(self, name: str) -> Iterator[int]:
        """The model with the weights of ``name`` in it; yields their version."""
        version = self._pins[name]
        past = self._past.get(version, {})
        now = {name: self._parameters[name].data for name in past}
        try:
            for name, value in past.items():
                self._parameters[name].data = value
            with self.model.slots.holding(self._adapter):
                yield version
        finally:
            for name, value in now.items():
                self._parameters[name].data = value

    def save(self, folder: Path, *, optimizer: bool) -> Checkpoint:
        """Write weights, version, settings and, if asked, moments.

        Raises:
            EngineError: gradients are waiting for a step, and a checkpoint does not hold them.
        """
        if self._calls:
            raise EngineError(
                "gradients are waiting for optim_step, and a checkpoint does not hold them: step first, then save"
            )
        with checkpoint.writing(folder) as scratch:
            if self._adapter is not None:
                write_adapter(self._adapter, scratch, base_model=self.model.source)
            else:
                self.model.module.save_pretrained(scratch)
            if self.head is not None:
                self.head.save(scratch)
            self.model.tokenizer.save_pretrained(scratch)
            if optimizer:
                safetensors.torch.save_file(self._optimizer.state(), scratch / OPTIMIZER)
            state = {"policy_version": self.version, "spec": self.spec.model_dump(mode="json")}
            (scratch / STATE).write_text(json.dumps(state, indent=2) + "\n")
        return Checkpoint(folder.name, str(folder), self.version, checkpoint.digest(folder))

    def restore(self, folder: Path, *, optimizer: bool) -> None:
        """Take up the adapter and the moments in ``folder``; a whole model's weights are in ``model`` already.

        Raises:
            CheckpointError: the checkpoint has no optimizer, and one is asked for.
        """
        if self._adapter is not None:
            read_adapter(self._adapter, folder)
        if self.head is not None and has_head(folder):
            self.head.read(folder)
        if optimizer:
            if not (folder / OPTIMIZER).is_file():
                raise CheckpointError(
                    f"the checkpoint {folder} was saved without its optimizer: load it with optimizer=False"
                )
            self._optimizer.restore(safetensors.torch.load_file(folder / OPTIMIZER))


def saved_state(folder: Path) -> tuple[PolicySpec, int]:
    """The spec and version of a verified checkpoint."""
    checkpoint.verify(folder)
    state = json.loads((folder / STATE).read_text())
    return PolicySpec.model_validate(state["spec"]), int(state["policy_version"])
