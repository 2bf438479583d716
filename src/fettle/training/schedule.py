"""The learning rate of each step, in closed form."""

import math

from fettle.config import Constant, Cosine, Schedule


def learning_rate(schedule: Schedule, peak: float, *, step: int, steps: int) -> float:
    """The rate of optimizer step ``step``, counted from 0, of ``steps``.

    During warm-up ``peak (step + 1) / warmup``; then, with p from 0 at the first step after it to 1 at the last,
    constant ``peak``, linear ``peak (1 - p (1 - final))``, or cosine ``peak (final + (1 - final) (1 + cos πp) / 2)``.
    """
    if step < schedule.warmup_steps:
        return peak * (step + 1) / schedule.warmup_steps
    if isinstance(schedule, Constant):
        return peak
    span = max(1, steps - 1 - schedule.warmup_steps)
    progress = min(1.0, (step - schedule.warmup_steps) / span)
    if isinstance(schedule, Cosine):
        return peak * (schedule.final + (1 - schedule.final) * (1 + math.cos(math.pi * progress)) / 2)
    return peak * (1 - progress * (1 - schedule.final))
