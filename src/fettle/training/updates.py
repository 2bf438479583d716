"""The optimizer steps of one batch: made ready, and submitted in order."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from fettle.config import AdamW, LossConfig, RLRun
from fettle.engine import Policy
from fettle.training.credit import weighted
from fettle.training.schedule import learning_rate
from fettle.types import Datum, ForwardResult, OptimResult

Outcome = tuple[ForwardResult, OptimResult]
"""Of one optimizer step."""


@dataclass(frozen=True, slots=True, eq=False)
class Update:
    """One optimizer step that is to be made."""

    data: Sequence[Datum]
    adam: AdamW


def updates(data: Sequence[Sequence[Datum]], run: RLRun, adam: AdamW, *, step: int) -> list[Update]:
    """The steps that a batch is worth: one a minibatch of groups, in every epoch, each at the rate of its number."""
    share = -(-len(data) // run.minibatches)
    parts = [weighted(data[first : first + share], run) for first in range(0, len(data), share)]
    each = run.minibatches * run.epochs
    return [
        Update(part, adam.model_copy(update={"learning_rate": _rate(run, adam, step * each + number)}))
        for number, part in enumerate(parts * run.epochs)
    ]


def submitted(policy: Policy, update: Update, loss: LossConfig, *, undoable: bool = False) -> "asyncio.Future[Outcome]":
    """One optimizer step, submitted at once: the engine keeps the order, and need not wait for us."""
    result = asyncio.ensure_future(policy.forward_backward(update.data, loss))
    stepped = asyncio.ensure_future(policy.optim_step(update.adam, undoable=undoable))
    return asyncio.gather(result, stepped)


async def made(policy: Policy, wanted: Sequence[Update], loss: LossConfig) -> list[Outcome]:
    """All of them, one after the other."""
    return await asyncio.gather(*(submitted(policy, update, loss) for update in wanted))


def _rate(run: RLRun, adam: AdamW, number: int) -> float:
    steps = run.steps * run.minibatches * run.epochs
    return learning_rate(run.schedule, adam.learning_rate, step=number, steps=steps)
