"""Sandbox: small programs, each behind all its walls, for a second of one processor's time.

Counted is the processor time of everything that takes part: who asks, the worker, and each program's own processes.
What the kernel clears away afterwards on threads of its own is not among it.
"""

import asyncio
import subprocess
import sys
import time

import psutil

from benchmarks.figures import spread
from benchmarks.harness import Outcome, Row, Settings, interleaved, main
from benchmarks.machine import Floor
from fettle.config import SandboxSettings
from fettle.sandbox import Sandbox, sandbox

ROW = Row(
    name="sandbox",
    work="programs of 50 asserts, each with namespaces, system-call filter and files of its own",
    peer="a new interpreter for each, with no walls (`python -I -S`)",
    target=100.0,
    unit="a core-second",
)
PROGRAM = """
def distinct(numbers):
    return sorted(set(numbers))

for extra in range(50):
    assert distinct([3, 1, 2, extra]) == sorted({3, 1, 2, extra})
print("passed")
"""
PATIENCE = 60.0


def measured(settings: Settings, floor: Floor) -> Outcome:
    """The row."""
    count = 50 if settings.quick else 300
    with asyncio.Runner() as runner:
        box = sandbox(SandboxSettings(workers=1))
        walls = box.isolation()
        spent = interleaved(
            {"ours": lambda: runner.run(_ours(box, count)), "peer": lambda: _bare(count)}, settings.repetitions
        )
        found = {name: [count / seconds for seconds in times] for name, times in spent.items()}
        waits = [runner.run(_wait(box)) for _ in range(count)]
        runner.run(box.close())
    ours = {"a_core_second": spread(found["ours"]), "wait_ms": spread([1000 * wait for wait in waits])}
    return Outcome(ours["a_core_second"]["median"], ours, {"a_core_second": spread(found["peer"])}, [f"{walls}."])


async def _ours(box: Sandbox, count: int) -> float:
    """Processor seconds of so many programs."""
    began = _spent()
    for _ in range(count):
        assert (await box.run(PROGRAM)).stdout == b"passed\n"
    return _spent() - began


async def _wait(box: Sandbox) -> float:
    """How long one program takes, from the question to its outcome."""
    began = time.perf_counter()
    await box.run(PROGRAM)
    return time.perf_counter() - began


def _spent() -> float:
    """Processor seconds of this process, of all that run below it, and of those that they waited for."""
    below = [process.cpu_times() for process in psutil.Process().children(recursive=True)]
    workers = sum(times.user + times.system + times.children_user + times.children_system for times in below)
    return time.process_time() + workers


def _bare(count: int) -> float:
    """The same in new interpreters, one after another."""
    began = _spent_by_children()
    for _ in range(count):
        command = [sys.executable, "-I", "-S", "-c", PROGRAM]
        assert subprocess.run(command, capture_output=True, timeout=PATIENCE).stdout == b"passed\n"
    return _spent_by_children() - began


def _spent_by_children() -> float:
    times = psutil.Process().cpu_times()
    return time.process_time() + times.children_user + times.children_system


if __name__ == "__main__":
    main(ROW, measured)
