"""Cost as work grows: a step's time and peak memory against each thing that makes it larger, doubled four times.

A step draws completions, learns from them and moves the weights; every point is a fresh process with the tiny model.
Exponents are slopes in log-log over the upper part of the line. None may be worse than linear, or than the arithmetic
itself where attention makes that grow faster; how much each exceeds that is the figure of the row. Peak memory is over
that of the process before it has a model, so the model itself, which every point holds, is part of it and flattens its
line; the peaks are told beside the exponents.
"""

import statistics
import time
from dataclasses import asdict, replace
from random import Random
from typing import Any

from benchmarks import flops, models
from benchmarks.figures import exponent
from benchmarks.harness import Outcome, Row, Settings, in_fresh_process, main
from benchmarks.machine import Floor, held, peak_of
from benchmarks.models import FIRST_ID, SIZES, Size
from benchmarks.workload import POLICY, Workload, completions, drawn, engine, training_data
from fettle.config import PPO, AdamW, LoRA, PolicySpec

ROW = Row(
    name="scaling",
    work="exponents of step time and peak memory, each axis doubled four times",
    peer="linear growth, or the arithmetic's own",
    target=0.15,
    better="lower",
    unit="above it",
)
PROMPTS = 4
AXES: dict[str, tuple[int, ...]] = {
    "group": (4, 8, 16, 32, 64),
    "prompt": (64, 128, 256, 512, 1024),
    "completion": (32, 64, 128, 256, 512),
    "vocabulary": (2048, 4096, 8192, 16_384, 32_768),
    "adapters": (1, 2, 4, 8, 16),
}
"""What is doubled, from its start; the others stay at ``FIXED``."""
FIXED = {"group": 8, "prompt": 64, "completion": 32, "vocabulary": 512, "adapters": 0}


def measured(settings: Settings, floor: Floor) -> Outcome:
    """The row."""
    found: dict[str, Any] = {}
    excess = []
    for axis, sizes in AXES.items():
        chosen = sizes[:3] if settings.quick else sizes
        points = [in_fresh_process("benchmarks.scaling:step", settings, **{**FIXED, axis: size}) for size in chosen]
        needed = exponent(chosen, [point["flops"] for point in points])
        slopes = {what: exponent(chosen, [point[what] for point in points]) for what in ("seconds", "peak_mib")}
        excess += [slopes["seconds"] - max(1.0, needed), slopes["peak_mib"] - 1.0]
        found[axis] = {
            "sizes": list(chosen),
            "seconds": [point["seconds"] for point in points],
            "peak_mib": [point["peak_mib"] for point in points],
            "exponent_of_time": slopes["seconds"],
            "exponent_of_memory": slopes["peak_mib"],
            "exponent_of_arithmetic": needed,
        }
    note = "peak memory includes the model, which every point of an axis holds and which flattens its exponent"
    return Outcome(max(excess), found, {}, notes=[note])


def step(
    settings: Settings, *, group: int, prompt: int, completion: int, vocabulary: int, adapters: int
) -> dict[str, float]:
    """The median time of a step, its peak memory over that of the bare process, and its operations."""
    size = replace(SIZES["tiny"], vocabulary=vocabulary)
    recipe = {"size": asdict(size), "ends": None}
    model = models.cached("scaled", recipe, lambda place: models.make(size, None, place))
    work = _work(model, size, group=group, prompt=prompt, completion=completion)
    replies = completions(work, fixed=True)
    data = training_data(work, replies)
    lora = LoRA() if adapters else None
    before = held(settings.device)
    with engine(settings, model, lora=lora) as backend:
        names = [POLICY, *(f"further-{index}" for index in range(1, adapters))]
        for name in names[1:]:
            backend.create_policy(name, PolicySpec(model=model, lora=lora, precision=settings.precision))

        def whole(seed: int) -> float:
            started = time.perf_counter()
            for name in names:
                drawn(backend, work, seed=seed, policy=name)
                backend.forward_backward(name, data, PPO())
                backend.optim_step(name, AdamW(learning_rate=1e-6))
            return time.perf_counter() - started

        peak = peak_of(lambda: whole(0), settings.device)
        times = [whole(seed) for seed in range(1, 2 if settings.quick else 4)]
    lengths = [len(reply) for reply in replies]
    needed = 4 * flops.answered(size, [prompt] * PROMPTS, group, lengths) * max(1, adapters)
    return {"seconds": statistics.median(times), "peak_mib": (peak - before) / 2**20, "flops": needed}


def _work(model: str, size: Size, *, group: int, prompt: int, completion: int) -> Workload:
    rng = Random("scaling")
    prompts = [[rng.randrange(FIRST_ID, size.vocabulary) for _ in range(prompt)] for _ in range(PROMPTS)]
    return Workload(model, size, prompts, group, completion)


if __name__ == "__main__":
    main(ROW, measured)
