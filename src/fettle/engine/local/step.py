"""The training step: a call's data through the model, one micro-batch at a time, into gradients and metrics."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from fettle import losses
from fettle.config import LossConfig
from fettle.engine.local.layout import MicroBatch, bins, micro_batch
from fettle.engine.local.model import LanguageModel
from fettle.errors import LossInputError
from fettle.types import Datum, Floats, ForwardResult


class Totals:
    """Sums over micro-batches of what a call reports."""

    def __init__(self, size: int) -> None:
        self._loss = 0.0
        self._tokens = 0
        self._sums: dict[str, float] = {}
        self._logprobs: list[Floats] = [np.zeros(0, np.float32)] * size

    def add(self, batch: MicroBatch, loss: Tensor, logprobs: Tensor, metrics: Mapping[str, Tensor]) -> None:
        """Take in one micro-batch."""
        self._loss += float(loss.detach())
        mask = batch.loss_mask
        self._tokens += int(mask.sum())
        for name, values in metrics.items():
            self._sums[name] = self._sums.get(name, 0.0) + float((values * mask).sum())
        rows = logprobs.detach().float().cpu().numpy()
        for row, index in zip(rows, batch.indices, strict=True):
            self._logprobs[index] = row

    def result(self, data: Sequence[Datum]) -> ForwardResult:
        """Means over trained tokens, and each datum's log-probabilities cut to its length."""
        tokens = max(self._tokens, 1)
        logprobs = [row[: len(datum.tokens)].copy() for row, datum in zip(self._logprobs, data, strict=True)]
        return ForwardResult(self._loss, {name: s / tokens for name, s in self._sums.items()}, logprobs, self._tokens)


def run(
    model: LanguageModel,
    data: Sequence[Datum],
    loss: LossConfig,
    *,
    budget: int,
    backward: Callable[[Tensor], None] | None,
) -> ForwardResult:
    """Evaluate ``loss`` over ``data``; hand each micro-batch's weighted sum to ``backward``.

    Raises:
        LossInputError: the data lacks what the loss reads, or holds token ids the model has no embedding for.
        ModelError: a sequence is longer than the model's context.
        ConfigError: a sequence is longer than the micro-batch budget.
    """
    losses.check_inputs(loss, data)
    for index, datum in enumerate(data):
        model.check_tokens(f"datum {index}", int(datum.tokens.min()), int(datum.tokens.max()), len(datum.tokens))
    totals = Totals(len(data))
    streams = losses.required_inputs(loss)
    for indices in bins([len(datum.tokens) for datum in data], budget=budget):
        batch = micro_batch(data, indices, streams, model.device)
        logprobs, entropy = model.logprobs(batch.tokens, batch.loss_mask > 0, batch.temperature)
        inputs = {"loss_mask": batch.loss_mask, **batch.streams}
        values, metrics = losses.evaluate(loss, logprobs, inputs)
        total = (values * batch.weights).sum()
        if not torch.isfinite(total):
            raise LossInputError(
                f"the loss {loss.type} is {total.item()} on data {_some(indices)}: "
                "look for extreme log-probabilities or advantages there"
            )
        if backward is not None:
            backward(total)
        totals.add(batch, total, logprobs, {**metrics, "entropy": entropy})
    return totals.result(data)


@contextmanager
def all_or_nothing(parameters: Mapping[str, nn.Parameter]) -> Iterator[None]:
    """Gradients made inside are added to those held before; if anything is raised, the old ones stay alone."""
    held = {name: parameter.grad for name, parameter in parameters.items()}
    for parameter in parameters.values():
        parameter.grad = None
    try:
        yield
    except BaseException:
        for name, parameter in parameters.items():
            parameter.grad = held[name]
        raise
    for name, parameter in parameters.items():
        before = held[name]
        if before is not None:
            parameter.grad = before if parameter.grad is None else before.add_(parameter.grad)


def _some(indices: Sequence[int]) -> str:
    shown = ", ".join(map(str, sorted(indices)[:5]))
    return shown if len(indices) <= 5 else f"{shown} and {len(indices) - 5} more"
