"""Overlap: a run that draws its next batch while it learns from the last, against one in which they take turns.

The first has ``max_staleness: 1`` and half of the threads for sampling; the second is strictly on-policy and has all of
them for both. Neither the first step is counted nor the last: a run that draws ahead has two batches drawn beside its
first step, and nothing left to draw beside its last.
"""

import statistics
from typing import Any

from benchmarks import models
from benchmarks.figures import ratio, spread
from benchmarks.grpo import recipe, tasks
from benchmarks.harness import Outcome, Row, Settings, in_fresh_process, in_turn, main
from benchmarks.machine import Floor

ROW = Row(
    name="overlap",
    work="steps a second of a GRPO run that samples while it learns (max_staleness 1), 17 M",
    peer="the same run strictly on-policy",
    target=1.0,
)
STEPS, QUICK_STEPS = 6, 2
"""Counted ones, of a run; it takes two more."""
REPETITIONS = 3


def measured(settings: Settings, floor: Floor) -> Outcome:
    """The row."""
    steps = QUICK_STEPS if settings.quick else STEPS
    repetitions = 1 if settings.quick else REPETITIONS
    sides = {
        "ours": lambda: in_fresh_process("benchmarks.overlap:steps", settings, beside=True, steps=steps),
        "peer": lambda: in_fresh_process("benchmarks.overlap:steps", settings, beside=False, steps=steps),
    }
    found = {name: [run["rate"] for run in runs] for name, runs in in_turn(sides, repetitions).items()}
    sides_told = {name: {"steps_per_second": spread(rates)} for name, rates in found.items()}
    return Outcome(ratio(found["ours"], found["peer"]), sides_told["ours"], sides_told["peer"])


def steps(settings: Settings, *, beside: bool, steps: int) -> dict[str, float]:
    """Steps a second, of all but the first and the last."""
    from benchmarks.recipes import StepTimer, carried_out

    timer = StepTimer()
    asked: dict[str, Any] = recipe(settings, models.folder("small"), str(tasks()), steps=steps + 2)
    if beside:
        half = max(1, settings.threads // 2)
        asked["max_staleness"] = 1
        asked["engine"] |= {"threads": max(1, settings.threads - half), "sampling_threads": half}
    carried_out(asked, timer)
    return {"rate": 1 / statistics.fmean(timer.seconds[1:-1])}


if __name__ == "__main__":
    main(ROW, measured)
