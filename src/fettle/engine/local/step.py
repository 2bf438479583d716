"""The training step: a call's data through the model, one micro-batch at a time, into gradients and metrics."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from time import perf_counter
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from fettle import losses
from fettle.config import LossConfig, Reading
from fettle.engine.local.group import ALONE, Group, agreed, share
from fettle.engine.local.head import Head
from fettle.engine.local.layout import Laid, MicroBatch, layouts, micro_batch, side_by_side
from fettle.engine.local.model import LanguageModel
from fettle.errors import LossInputError
from fettle.types import Datum, Floats, ForwardResult, Ints

_EXTREMES: Mapping[str, Callable[[float, float], float]] = MappingProxyType({"_max": max, "_min": min})
"""How two micro-batches' metrics are joined that are no means, by the end of their names."""


class Totals:
    """Sums over micro-batches of what a call reports."""

    def __init__(self, size: int) -> None:
        self._loss = 0.0
        self._units = 0.0
        self._sums: dict[str, float] = {}
        self._seen: list[int] = []
        self._logprobs: list[Floats] = [np.zeros(0, np.float32)] * size
        self._values: list[Floats] = [np.zeros(0, np.float32)] * size
        self._scores = [0.0] * size
        self._seconds: dict[str, float] = {}
        self.fault = ""
        """What is wrong with the loss of a micro-batch."""

    def spent(self, name: str, seconds: float) -> None:
        """Take in time by the host's clock: a device may still be at work."""
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds

    def add(self, batch: MicroBatch, said: Mapping[str, Tensor]) -> None:
        """Take in what the model said of one micro-batch."""
        self._seen += batch.indices
        for name, kept in (("logprobs", self._logprobs), ("values", self._values)):
            if name in said:
                for row, index in zip(said[name].detach().float().cpu().numpy(), batch.indices, strict=True):
                    kept[index] = row
        if "scores" in said:
            for score, index in zip(said["scores"].tolist(), batch.indices, strict=True):
                self._scores[index] = score

    def add_loss(self, loss: Tensor, metrics: Mapping[str, Tensor], counted: Tensor) -> float:
        """Take in its loss, and metrics of the shape of ``counted``, which is 1 for what is spoken of; gives the loss.

        Everything comes from the device at once: each number by itself would make the device wait.
        """
        sums = [_summed(name, values, counted) for name, values in metrics.items()]
        numbers: list[float] = torch.stack([loss.detach(), counted.sum(), *sums]).tolist()
        value, units, *found = numbers
        self._loss += value
        self._units += units
        for name, number in zip(metrics, found, strict=True):
            if name[-4:] not in _EXTREMES or units:
                self._count(name, number)
        return value

    def join(self, other: "Totals") -> None:
        """Take in what another rank counted over micro-batches of its own."""
        self._loss += other._loss
        self._units += other._units
        for name, number in other._sums.items():
            self._count(name, number)
        for i in other._seen:
            self._logprobs[i], self._values[i], self._scores[i] = other._logprobs[i], other._values[i], other._scores[i]
        for name, seconds in other._seconds.items():
            self._seconds[name] = max(self._seconds.get(name, 0.0), seconds)

    def _count(self, name: str, number: float) -> None:
        best = _EXTREMES.get(name[-4:])
        if best is None:
            self._sums[name] = self._sums.get(name, 0.0) + number
        else:
            self._sums[name] = best(self._sums.get(name, number), number)

    def result(self, data: Sequence[Datum], read: Collection[str]) -> ForwardResult:
        """Means over what the loss speaks of, and what was read of each datum, cut to its length."""
        units = max(self._units, 1.0)
        means = {name: s if name[-4:] in _EXTREMES else s / units for name, s in self._sums.items()}

        def cut(rows: Sequence[Floats]) -> list[Floats]:
            return [row[: len(datum.tokens)].copy() for row, datum in zip(rows, data, strict=True)]

        return ForwardResult(
            self._loss,
            losses.finished(means),
            cut(self._logprobs) if "logprobs" in read else [],
            sum(int(datum.loss_mask.sum()) for datum in data),
            cut(self._values) if "values" in read else [],
            self._scores if "scores" in read else [],
            self._seconds,
        )


def run(
    model: LanguageModel,
    data: Sequence[Datum],
    loss: LossConfig,
    *,
    budget: int,
    backward: Callable[[Tensor], None] | None,
    head: Head | None = None,
    group: Group = ALONE,
) -> ForwardResult:
    """Evaluate ``loss`` over ``data``; hand each micro-batch's weighted sum to ``backward``.

    Each rank of a group runs its share, and is told what all of them came to.

    Raises:
        LossInputError: the data lacks what the loss reads, or holds token ids the model has no embedding for.
        ModelError: a sequence is longer than the model's context.
        ConfigError: a sequence is longer than the micro-batch budget.
        EngineError: there is not enough memory.
    """
    losses.check_inputs(loss, data)
    read = losses.model_outputs(loss)
    for index, datum in enumerate(data):
        _check_tokens(model, f"datum {index}", datum, read)
    masks = [name for name in losses.masks(loss) if any(name in datum.streams for datum in data)]
    streams, scalars = (*losses.required_inputs(loss), *masks), losses.required_scalars(loss)

    def own() -> Totals:
        totals = Totals(len(data))
        batches, most = _share(model, data, loss, read, budget, group)
        for indices, laid in batches:
            batch = micro_batch(data, indices, laid, streams, scalars=scalars)
            with batch.laid.enough_memory():
                started = perf_counter()
                asked = (batch.laid, batch.targets, batch.loss_mask > 0, batch.temperature)
                said = model.outputs(*asked, read=read, head=head, lengths=batch.lengths)
                totals.add(batch, said)
                total = None if isinstance(loss, Reading) else _evaluated(loss, batch, said, totals)
                totals.spent("forward", perf_counter() - started)
                if totals.fault and not group.parts:
                    raise LossInputError(totals.fault)
                if total is not None and backward is not None:
                    started = perf_counter()
                    backward(total)
                    totals.spent("backward", perf_counter() - started)
        for _ in range(most - len(batches)):
            _run_idle(model, backward)
        if totals.fault:
            raise LossInputError(totals.fault)
        return totals

    totals, *others = agreed(group, own)
    for other in others:
        totals.join(other)
    return totals.result(data, read)


def _share(
    model: LanguageModel, data: Sequence[Datum], loss: LossConfig, read: Collection[str], budget: int, group: Group
) -> tuple[list[tuple[list[int], Laid]], int]:
    """A rank's micro-batches of a call, and how many all ranks must run: the most that one of them has."""
    needed = [_needed(datum, read) for datum in data]
    pairs = losses.pairs(data) if losses.unit_of(loss) == "pair" else None
    together = share(needed, group, together=pairs, packed=model.packed)

    def laid_out() -> list[tuple[list[int], Laid]]:
        return layouts(
            needed, packed=model.packed, budget=budget, device=model.device, together=together, steady=model.steady
        )

    if not group.parts:
        return laid_out(), 0
    own: list[tuple[list[int], Laid]] = []

    def counted() -> int:
        own.extend(laid_out())
        return len(own)

    return own, max(agreed(group, counted))


def _check_tokens(model: LanguageModel, name: str, datum: Datum, read: Collection[str]) -> None:
    """Where targets are given, the last token only stands for a place: it need not fit into the context."""
    length, last = len(datum.tokens), 0 if datum.targets is None or "scores" in read else 1
    model.check_tokens(name, int(datum.tokens.min()), int(datum.tokens.max()), length - last)
    if datum.targets is not None:
        model.check_tokens(f"targets of {name}", int(datum.targets[1:].min()), int(datum.targets[1:].max()), 0)


def _needed(datum: Datum, read: Collection[str]) -> Ints:
    """The tokens that are run: what stands after them, nobody asks, save where scores are read at the end."""
    if "scores" in read:
        return datum.tokens
    trained = np.flatnonzero(datum.loss_mask)
    return datum.tokens[: int(trained[-1]) if len(trained) else 1]


def _run_idle(model: LanguageModel, backward: Callable[[Tensor], None] | None) -> None:
    """Run the model as a micro-batch would, for nothing but that other ranks run one."""
    states = model.states(side_by_side([np.zeros(1, np.int32)], model.device))
    if backward is not None:
        backward(states.sum() * 0)


def _evaluated(loss: LossConfig, batch: MicroBatch, said: dict[str, Tensor], totals: Totals) -> Tensor:
    """The weighted sum over one micro-batch; that it is no finite number is a fault of the totals."""
    values, metrics = losses.evaluate(loss, said, {"loss_mask": batch.loss_mask, **batch.streams, **batch.scalars})
    unit = losses.unit_of(loss)
    if unit == "token":
        weights, counted = batch.weights, batch.loss_mask
        if "entropy" in said:
            metrics = {**metrics, "entropy": said["entropy"].detach()}
    else:
        weights = batch.scalars["weight"][0::2] if unit == "pair" else batch.scalars["weight"]
        counted = torch.ones_like(weights)
    total = (values * weights).sum()
    value = totals.add_loss(total, metrics, counted)
    if not math.isfinite(value):
        totals.fault = (
            f"the loss {loss.type} is {value} on data {_some(batch.indices)}: "
            "look for extreme log-probabilities or advantages there"
        )
    return total


def _summed(name: str, values: Tensor, counted: Tensor) -> Tensor:
    """The sum over what is counted, or the greatest or least of it."""
    if name.endswith("_max"):
        return torch.where(counted > 0, values, -torch.inf).max()
    if name.endswith("_min"):
        return torch.where(counted > 0, values, torch.inf).min()
    return (values * counted).sum()


def _some(indices: Sequence[int]) -> str:
    shown = ", ".join(map(str, sorted(indices)[:5]))
    return shown if len(indices) <= 5 else f"{shown} and {len(indices) - 5} more"
