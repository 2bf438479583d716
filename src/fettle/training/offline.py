"""What loops over fixed data share: the order of the rows, their length, the optimizer step and its metrics."""

import functools
import random
from collections.abc import Mapping, Sequence

from fettle.config import PreferenceRun, RewardModelRun, SFTRun
from fettle.errors import DataError
from fettle.training.memory import context_of
from fettle.training.schedule import learning_rate
from fettle.training.timing import Stopwatch
from fettle.training.updates import Outcome, Update
from fettle.types import Datum, Message

OfflineRun = SFTRun | PreferenceRun | RewardModelRun
"""A run in which nothing is sampled."""

QUOTED = 60
"""Characters of a conversation that an error shows."""


class Order:
    """Every row once an epoch, in an order keyed by the epoch."""

    def __init__(self, size: int, seed: int) -> None:
        self._size = size
        self._epoch = functools.lru_cache(maxsize=2)(
            lambda epoch: random.Random(f"{seed}/epoch/{epoch}").sample(range(size), size)
        )

    def of_batch(self, step: int, batch_size: int) -> list[int]:
        """Indices of the rows in one batch."""
        places = range(step * batch_size, (step + 1) * batch_size)
        return [self._epoch(place // self._size)[place % self._size] for place in places]

    def of_run(self, steps: int, batch_size: int) -> list[int]:
        """Indices of the rows that a run sees at all, in rising order."""
        return sorted(self._epoch(0)[: steps * batch_size])


def check_lengths(run: OfflineRun, asked: Sequence[Sequence[Message]], lengths: Sequence[int], *, what: str) -> None:
    """Refuse data of which some would not fit, before anything is trained on; ``what`` is what it is called.

    Raises:
        DataError: some are longer; it says how many, and quotes how the first of them begins.
    """
    context = context_of(run.policy.model)
    limit, name, mend = (
        (context, "the model's context", "take a model with a longer one")
        if context is not None and context < run.max_tokens
        else (run.max_tokens, "max_tokens", "raise max_tokens")
    )
    long = [index for index, length in enumerate(lengths) if length > limit]
    if not long:
        return
    begins = asked[long[0]][0].content[:QUOTED]
    raise DataError(
        f"{len(long)} of {len(lengths)} {what} are longer than {name}, which is {limit}: the first begins {begins!r} "
        f"and has {lengths[long[0]]} tokens, the longest has {max(lengths)}: {mend}, or leave them out"
    )


def update(run: OfflineRun, data: Sequence[Datum], step: int) -> Update:
    """The optimizer step that a batch is worth, at the rate of its number."""
    rate = learning_rate(run.schedule, run.optimizer.learning_rate, step=step, steps=run.steps)
    return Update(data, run.optimizer.model_copy(update={"learning_rate": rate}))


def step_row(update: Update, outcome: Outcome, told: Mapping[str, float], watch: Stopwatch) -> dict[str, float]:
    """The metrics of one step, which is then over; ``told`` is what the loop itself makes of the result."""
    result, stepped = outcome
    tokens, times = sum(len(datum.tokens) for datum in update.data), watch.row()
    return {
        "loss": result.loss,
        **told,
        "policy/grad_norm": stepped.grad_norm,
        "policy/skipped_steps": float(stepped.skipped),
        "policy/learning_rate": update.adam.learning_rate,
        "policy/version": float(stepped.policy_version),
        "progress/step_tokens": float(tokens),
        **times,
        "speed/tokens_per_second": tokens / times["time/step"],
    }


def due(run: OfflineRun, done: int) -> bool:
    """Whether held-out rows are to be evaluated after ``done`` steps."""
    return done % run.evaluation.every == 0 or done == run.steps
