"""What the SFT and DPO rows share: texts of given lengths, and both trainers' steps in fresh processes."""

import itertools
import json
import statistics
import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.figures import ratio
from benchmarks.harness import Outcome, Settings, in_fresh_process, in_turn, told
from benchmarks.machine import Floor
from fettle.data import split
from fettle.types import Message

RATE = 1e-5


def text(rng: Random, length: int) -> str:
    """Random letters: as many tokens."""
    return "".join(rng.choices(string.ascii_lowercase, k=length))


def compared(
    module: str, settings: Settings, floor: Floor, *, flops: float, ways: Sequence[Mapping[str, Any]]
) -> Outcome:
    """Whole steps of ``ours`` and ``peer`` of a module, which take ``warm_up`` and ``steps``.

    The peer also takes what a way says; the fastest of ``ways``, by its steps, is measured.
    """
    steps = {"warm_up": 1, "steps": 2 if settings.quick else 5}
    tried = [(in_fresh_process(f"{module}:peer", settings, warm_up=1, steps=2, **way)["seconds"], way) for way in ways]
    chosen = min(tried, key=lambda each: float(each[0]))[1]
    sides = {
        "ours": lambda: in_fresh_process(f"{module}:ours", settings, **steps),
        "peer": lambda: in_fresh_process(f"{module}:peer", settings, **steps, **chosen),
    }
    found = in_turn(sides, settings.repetitions)
    times = {name: [run["seconds"] for run in runs] for name, runs in found.items()}
    sides_told = {name: told(of, flops=flops, floor=floor, dtype=settings.dtype) for name, of in times.items()}
    return Outcome(
        ratio(times["peer"], times["ours"]),
        sides_told["ours"],
        {**sides_told["peer"], "chosen": chosen, "tried": [{**way, "seconds": seconds} for seconds, way in tried]},
    )


def written(rows: Sequence[Mapping[str, str]], path: Path) -> Path:
    """The rows as a file, with one more, so worded that it is the one which a recipe with ``heldout: 1`` holds out.

    So that every step learns from all of them, and from nothing else.
    """
    for number in itertools.count():
        extra = {**rows[0], "prompt": f"held out {number}"}
        talks = [(Message("user", row["prompt"]), Message("assistant", "-")) for row in (*rows, extra)]
        if split(talks, heldout=1, seed=0)[1][0][0].content == extra["prompt"]:
            break
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in (*rows, extra)))
    return path


def median_step(seconds: list[float], warm_up: int) -> dict[str, float]:
    """The answer of one side."""
    return {"seconds": statistics.median(seconds[warm_up:])}
