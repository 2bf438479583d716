"""One policy as the local engine holds it: weights, adapter, optimizer, version, and the pins on its past."""

import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from fettle import losses
from fettle.config import AdamW, LossConfig, PolicySpec, Reading
from fettle.engine.local import checkpoint, pieces, snapshot, step
from fettle.engine.local.copied import OPTIMIZER, Copied, saved_at, saved_state
from fettle.engine.local.forward import Voice
from fettle.engine.local.generators import generator
from fettle.engine.local.group import ALONE, Group, writers
from fettle.engine.local.head import Head, has_head
from fettle.engine.local.lora import Adapter, read_adapter
from fettle.engine.local.memory import enough_memory, room_for
from fettle.engine.local.model import LanguageModel, load_model, new_head
from fettle.engine.local.optimizer import MOMENTS, Optimizer
from fettle.engine.local.parted import flat_of, part_layers, whole_state
from fettle.engine.local.snapshot import Moment
from fettle.errors import CheckpointError, ConfigError, StateError
from fettle.types import Checkpoint, Datum, ForwardResult, OptimResult

FEWER = "train fewer weights (policy.lora, a lower lora.rank), or a smaller model"
"""What helps where weights, gradients and moments do not fit."""


class _Past(NamedTuple):
    """Trained values as they were."""

    buffer: Tensor  # [N]
    views: dict[str, Tensor]


class LocalPolicy:
    """Weights that are trained: an adapter in a shared frozen model, or a whole model of its own."""

    def __init__(self, spec: PolicySpec, model: LanguageModel, *, version: int = 0, group: Group = ALONE) -> None:
        self.spec = spec
        self._group = group
        self.model = model
        self.version = version
        self._adapter: Adapter | None = None
        if spec.lora is not None:
            self._adapter = model.slots.adapter(spec.lora, seed=spec.seed)
        self.head: Head | None = new_head(model) if spec.head is not None else None
        trained = self._adapter.parameters if self._adapter else model.parameters
        self._parameters = {**trained, **(self.head.parameters if self.head else {})}
        self._flat = flat_of(self._parameters, group)
        self._optimizer = Optimizer(self._flat)
        self._calls = 0
        self._pins: dict[str, int] = {}
        self._past: dict[int, _Past] = {}
        self._before: tuple[Tensor, dict[str, Tensor]] | None = None

    def forward(self, data: Sequence[Datum], loss: LossConfig, *, budget: int) -> ForwardResult:
        """The loss and log-probabilities, with no gradient and no dropout."""
        self._check_head(loss)
        with torch.no_grad(), self.model.slots.holding(self._adapter):
            return step.run(self.model, data, loss, budget=budget, backward=None, head=self.head, group=self._group)

    def forward_backward(self, data: Sequence[Datum], loss: LossConfig, *, budget: int) -> ForwardResult:
        """Add the gradient of the call; a call that raises adds nothing.

        Raises:
            ConfigError: the loss reads a head that the policy does not have, or is none to learn from.
        """
        self._check_head(loss)
        if isinstance(loss, Reading):
            raise ConfigError("reading is no loss, and has no gradient: use forward")
        named = ("dropout", self.version, self._calls, *([self._group.rank] if self._group.rank else []))
        random = generator(self.spec.seed, *named, device=self.model.device)

        with (
            enough_memory("for gradients", FEWER),
            self._flat.all_or_nothing(self._group.add_up),
            self.model.slots.holding(self._adapter, random=random),
        ):
            result = step.run(
                self.model, data, loss, budget=budget, backward=Tensor.backward, head=self.head, group=self._group
            )
        self._calls += 1
        return result

    def optim_step(self, settings: AdamW, *, undoable: bool = False, empty: bool = False) -> OptimResult:
        """Step. The version counts steps, skipped ones too, so that it is also the number of steps asked for.

        An ``undoable`` step keeps one copy of weights and moments, until the next step or until it is undone. With
        ``empty``, gradients that nobody made are zeros: moments and weights decay.

        Raises:
            StateError: no gradient was accumulated.
            EngineError: there is not enough memory; everything is as it was then.
        """
        if not self._calls and not empty:
            raise StateError("optim_step has no gradient to apply: call forward_backward first")
        start = time.perf_counter()
        with enough_memory("for a step of the optimizer", FEWER):
            self._keep_pinned()
            before = (self._flat.values.clone(), self._optimizer.copy()) if undoable else None
            if not self._calls:
                with self._flat.all_or_nothing():  # adds zeros
                    pass
            norm, moved = self._optimizer.step(settings)
        self._before = before
        self.version += 1
        self._calls = 0
        return OptimResult(self.version, norm, skipped=not moved, seconds=time.perf_counter() - start)

    def undo(self) -> OptimResult:
        """Put weights and moments back to before the last step. The version goes up: these are weights again, but anew.

        Raises:
            StateError: the last step was not undoable, or gradients were accumulated since.
            EngineError: there is not enough memory; everything is as it was then.
        """
        if self._before is None or self._calls:
            raise StateError("there is no step to undo: make it with undoable=True, and undo it before the next call")
        start = time.perf_counter()
        with enough_memory("to undo a step", FEWER):
            self._keep_pinned()
        weights, moments = self._before
        self._flat.values.copy_(weights)
        self._flat.changed()
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
            buffer = self._flat.values.clone()
            self._past[self.version] = _Past(buffer, self._flat.views(buffer))

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
        if self._group.parts and self._adapter is None:  # the layers are gathered with these weights in them
            return Voice(version)
        if self._adapter is None:
            return Voice(version, tensors=None if past is None else past.views)
        return Voice(version, adapter=self._adapter if past is None else self._adapter.holding(past.views))

    @contextmanager
    def as_pinned(self, name: str) -> Iterator[int]:
        """The model with the weights of ``name`` in it; yields their version."""
        with self.model.slots.holding(self._adapter):
            if self._group.parts and self._adapter is None:
                yield self._pins[name]
                return
            with self.shown(name):
                yield self._pins[name]

    @contextmanager
    def shown(self, name: str) -> Iterator[None]:
        """Weights of ``name`` in the place of today's, with rows of layers that are parted."""
        past = self._past.get(self._pins[name])
        if past is None:
            yield
            return
        with self._flat.holding(past.views):
            yield

    def copied(self, *, optimizer: bool, lent: bool = False) -> Copied:
        """All that a checkpoint of today's weights holds, and, if asked, moments: as copies, to be written later.

        What is ``lent`` is the policy's own, where that can be, and must be written before anything else is done.

        Raises:
            StateError: gradients are waiting for a step, and a checkpoint to go on from does not hold them.
            EngineError: there is not enough memory for copies.
        """
        if self._calls and optimizer:
            raise StateError(
                "gradients are waiting for optim_step, and a checkpoint does not hold them: step first, then save"
            )
        writes = self._group.rank == 0

        def copy(value: Tensor) -> Tensor:
            return value.detach() if lent else value.detach().to("cpu", copy=True)

        with enough_memory("to save weights", FEWER):
            if not lent:
                room_for(self._flat.values.nbytes * (1 + (len(MOMENTS) if optimizer else 0)))
            adapter = None
            if self._adapter is not None and writes:
                adapter = self._adapter.holding({name: copy(p) for name, p in self._adapter.parameters.items()})
            return Copied(
                spec=self.spec,
                version=self.version,
                model=self.model,
                group=self._group,
                adapter=adapter,
                weights=None if self._adapter else whole_state(self.model.module, kept=writes, lent=lent),
                head={name: copy(each) for name, each in self.head.parameters.items()} if self.head else {},
                moments={key: (copy(own), rows) for key, (own, rows) in self._optimizer.pieces().items()}
                if optimizer
                else None,
            )

    def save(self, folder: Path, *, optimizer: bool) -> Checkpoint:
        """Write a checkpoint at once, without a copy; see :meth:`copied`."""
        with checkpoint.writing(folder) as scratch:
            self.copied(optimizer=optimizer, lent=True).write(scratch)
        return saved_at(folder)

    def load(self, folder: Path, *, optimizer: bool) -> None:
        """Take up the adapter and the moments in ``folder``; a whole model's weights are in ``model`` already.

        Raises:
            CheckpointError: the checkpoint has no optimizer, and one is asked for.
        """
        if self._adapter is not None:
            read_adapter(self._adapter, folder)
        if self.head is not None and has_head(folder):
            self.head.read(folder)
        self._flat.changed()
        if optimizer:
            self._optimizer.restore(self._moments(folder))

    def restore(self, folder: Path, *, optimizer: bool) -> None:
        """Take up a checkpoint in the place of what is there: weights, and moments or none.

        Gradients are dropped. The version goes up; what is pinned stays as it was.

        Raises:
            CheckpointError: it is of another kind of policy, or altered, or lacks an optimizer that is asked for;
                everything is as it was then.
            EngineError: there is not enough memory; everything is as it was then.
        """
        spec, _ = saved_state(folder)
        _check_kind(self.spec, spec, folder)
        with enough_memory("to take up a checkpoint", FEWER):
            other = LocalPolicy(spec, self._twin(folder), group=self._group)
            other.load(folder, optimizer=optimizer)
            self._keep_pinned()
        self._flat.values.copy_(other._flat.values)
        self._flat.changed()
        self._flat.clear()
        self._optimizer.put_back(other._optimizer.held)
        self._before = None
        self._calls = 0
        self.version += 1

    def _twin(self, folder: Path) -> LanguageModel:
        """The model in which the policy saved in ``folder`` can be held."""
        if self._adapter is not None:
            return self.model
        twin = load_model(str(folder), device=self.model.device, precision=self.model.precision, trained=True)
        if self._group.parts:
            part_layers(twin.module)
        return twin

    def _moments(self, folder: Path) -> dict[str, Tensor]:
        if not (folder / OPTIMIZER).is_file():
            raise CheckpointError(
                f"the checkpoint {folder} was saved without its optimizer: load it with optimizer=False"
            )
        return pieces.read(folder / OPTIMIZER, self._optimizer.rows, self._flat.values.device)

    def moment(self) -> Moment:
        """All that the calls so far have made of the policy. The tensors are its own."""
        return Moment(
            spec=self.spec,
            version=self.version,
            calls=self._calls,
            pins=self._pins,
            values=self._flat.values,
            gradients=self._flat.gradients,
            moments=self._optimizer.held,
            before=self._before,
            past={version: past.buffer for version, past in self._past.items()},
        )

    def go_on_from(self, folder: Path, *, copied: bool) -> Collection[str]:
        """Be what the policy was when its snapshot was written into ``folder``; returns the names of its pins.

        ``copied``: whether what is pinned must be a copy; see :meth:`pin`.

        Raises:
            CheckpointError: the model has other layers than it had then.
            EngineError: there is not enough memory.
        """
        with enough_memory("for a policy as it was", FEWER):
            moment = snapshot.read(folder, self._flat)
            self._flat.values.copy_(moment.values)
            self._flat.changed()
            if moment.gradients is not None:
                self._flat.hold(moment.gradients)
            self._optimizer.put_back(dict(moment.moments))
            self._past = {version: _Past(buffer, self._flat.views(buffer)) for version, buffer in moment.past.items()}
            self._before, self._pins = moment.before, dict(moment.pins)
            self.version, self._calls = moment.version, moment.calls
            if copied:
                self._keep_pinned()
        return self._pins.keys()

    def snapshot(self, folder: Path) -> None:
        """All but the frozen base: see ``snapshot.write``."""
        snapshot.write(self.moment(), self._flat, folder, writers(self._group))


def _check_kind(own: PolicySpec, saved: PolicySpec, folder: Path) -> None:
    """Refuse a checkpoint whose weights would mean something else here."""
    here, there = _kind(own), _kind(saved)
    names = [name for name in here | there if here.get(name) != there.get(name)]
    unlike = [f"{name} {there.get(name)}, here {here.get(name)}" for name in names]
    if unlike:
        raise CheckpointError(
            f"the checkpoint {folder} is of another kind of policy ({'; '.join(unlike)}): load it into one of its own"
        )


def _kind(spec: PolicySpec) -> dict[str, object]:
    """What two policies must share for the weights of one to mean the same in the other."""
    whole = spec.model_dump(include={"model", "head", "quantization"})
    adapter = {} if spec.lora is None else spec.lora.model_dump(include={"rank", "alpha", "targets"})
    return {**whole, "weights": "whole" if spec.lora is None else "adapter", **adapter}
