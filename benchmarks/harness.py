"""How a row is measured: sides in turn, fresh processes, one record at the end."""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

from benchmarks import machine
from benchmarks.figures import rounded, spread
from benchmarks.machine import Floor

ROOT = Path(__file__).parent.parent
CACHE = ROOT / "runs" / "benchmarks"
"""Models, checkpoints and records; not in git."""
MARK = "@record "
"""Before the line that a child process answers with: whatever it runs may print too."""
REPETITIONS, QUICK_REPETITIONS = 5, 2


@dataclass(frozen=True, slots=True)
class Settings:
    """How a row is measured."""

    device: Literal["cpu", "cuda"] = "cpu"
    dtype: Literal["fp32", "bf16"] = "fp32"
    threads: int = 2
    quick: bool = False

    @property
    def repetitions(self) -> int:
        """How often each side takes its turn."""
        return QUICK_REPETITIONS if self.quick else REPETITIONS

    @property
    def precision(self) -> Literal["float32", "bfloat16"]:
        """As recipes say it."""
        return "bfloat16" if self.dtype == "bf16" else "float32"


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table: what is done, against whom, and how well at least (or at most)."""

    name: str
    work: str
    peer: str
    target: float
    better: Literal["higher", "lower"] = "higher"
    unit: str = "x"

    def met(self, value: float) -> bool:
        """Whether a value reaches the target."""
        return value >= self.target if self.better == "higher" else value <= self.target


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a row found: the figure that the target speaks of, and what each side did."""

    ratio: float
    ours: Mapping[str, Any]
    peer: Mapping[str, Any]
    notes: Sequence[str] = ()
    further: Mapping[str, bool] = field(default_factory=dict)
    """Other conditions that the row must meet, by name."""
    not_applicable: str = ""
    """Why this machine cannot tell."""


Measured = Callable[[Settings, Floor], Outcome]


def main(row: Row, measured: Callable[..., Outcome], **counts: str) -> dict[str, Any]:
    """Measure a row and print its record: one line of JSON, or the same laid out for people. It is returned too.

    ``counts`` describes further whole numbers that ``measured`` takes by name.
    """
    parser = argparse.ArgumentParser(description=f"{row.work}, against {row.peer}")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="few repetitions, to see that it works")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    for name, description in counts.items():
        parser.add_argument(f"--{name}", type=int, help=description)
    asked = parser.parse_args()
    settings = Settings(asked.device, asked.dtype, asked.threads, asked.quick)
    given = {name: getattr(asked, name) for name in counts if getattr(asked, name) is not None}
    found = record(row, partial(measured, **given), settings)
    print(json.dumps(found) if asked.json else json.dumps(found, indent=2), flush=True)
    return found


def record(row: Row, measured: Measured, settings: Settings) -> dict[str, Any]:
    """What a row found, with all that is needed to judge it."""
    prepare(settings.threads)
    started, before, floor = time.perf_counter(), machine.load(), machine.floor(settings.device)
    outcome = measured(settings, floor)
    floor = floor.best(machine.floor(settings.device))
    met = row.met(outcome.ratio) and all(outcome.further.values())
    found = {
        "benchmark": row.name,
        "ratio": outcome.ratio,
        "target": row.target,
        "met": None if outcome.not_applicable else met,
        "ours": outcome.ours,
        "peer": outcome.peer,
        "floor": asdict(floor),
        "versions": machine.versions(),
        "machine": machine.described(),
        "load": {"before": before, "after": machine.load()},
        "settings": {**asdict(settings), "repetitions": settings.repetitions},
        "further": dict(outcome.further),
        "notes": list(outcome.notes),
        "not_applicable": outcome.not_applicable,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": time.perf_counter() - started,
    }
    whole: dict[str, Any] = rounded(found)
    return whole


def prepare(threads: int) -> None:
    """Torch as both sides have it."""
    import torch

    torch.set_num_threads(threads)


def interleaved(sides: Mapping[str, Callable[[], float]], repetitions: int) -> dict[str, list[float]]:
    """What each side measures, side by side: each repetition begins with another of them.

    The first call of each is a warm-up, and is not counted.
    """
    for call in sides.values():
        call()
    return in_turn(sides, repetitions)


def in_turn(sides: Mapping[str, Callable[[], Any]], repetitions: int) -> dict[str, list[Any]]:
    """The same without warm-up, for sides that are fresh processes."""
    names = list(sides)
    found: dict[str, list[Any]] = {name: [] for name in names}
    for repetition in range(repetitions):
        first = repetition % len(names)
        for name in names[first:] + names[:first]:
            found[name].append(sides[name]())
    return found


def seconds_of(call: Callable[[], object], device: str) -> float:
    """How long a call takes."""
    machine.synchronize(device)
    started = time.perf_counter()
    call()
    machine.synchronize(device)
    return time.perf_counter() - started


def told(
    seconds: Sequence[float], *, flops: float | None = None, floor: Floor | None = None, dtype: str = "fp32"
) -> dict[str, Any]:
    """A side's times; where the work's operations are known, also as a multiple of the machine's floor."""
    found: dict[str, Any] = {"seconds": spread(seconds)}
    if flops is not None and floor is not None:
        found["floor_seconds"] = floor.seconds(flops, dtype)
        found["floor_multiple"] = found["seconds"]["median"] / found["floor_seconds"]
    return found


def in_fresh_process(function: str, settings: Settings, **arguments: Any) -> dict[str, Any]:
    """What ``module:function(settings, **arguments)`` answers in a process of its own.

    Raises:
        SystemExit: the process failed; its last words are passed on.
    """
    command = [sys.executable, "-m", "benchmarks.child", function, json.dumps(asdict(settings)), json.dumps(arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(settings.threads), "MKL_NUM_THREADS": str(settings.threads)}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    answers = [line for line in result.stdout.splitlines() if line.startswith(MARK)]
    if result.returncode or not answers:
        sys.exit(f"{function} failed ({result.returncode}):\n{result.stdout[-1500:]}\n{result.stderr[-3000:]}")
    answer: dict[str, Any] = json.loads(answers[-1].removeprefix(MARK))
    return answer
