"""Start-up: from the start of a ``fettle demo`` process to the end of its first training step, on a warm install."""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.figures import spread
from benchmarks.harness import Outcome, Row, Settings, main
from benchmarks.machine import Floor

ROW = Row(
    name="startup",
    work="`fettle demo`: process start to the end of the first training step",
    peer="nobody",
    target=15.0,
    better="lower",
    unit="s",
)
START = "from fettle.cli import main; main()"
PATIENCE = 300.0
"""Seconds after which a process that has made no step has failed."""


def measured(settings: Settings, floor: Floor) -> Outcome:
    """The row: the first process warms the file cache, and is not counted."""
    times = [_first_step() for _ in range(1 + settings.repetitions)][1:]
    seconds = spread(times)
    return Outcome(seconds["median"], {"seconds": seconds}, {})


def _first_step() -> float:
    with tempfile.TemporaryDirectory() as runs:
        started = time.perf_counter()
        command = [sys.executable, "-c", START, "demo", "--runs", runs]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            while not _stepped(Path(runs)):
                if process.poll() is not None or time.perf_counter() - started > PATIENCE:
                    sys.exit("fettle demo made no step")
                time.sleep(0.02)
            return time.perf_counter() - started
        finally:
            process.kill()
            process.wait()


def _stepped(runs: Path) -> bool:
    """Whether some run has a row of metrics of a step beyond the start."""
    lines = (line for path in runs.glob("**/metrics.jsonl") for line in path.read_text().splitlines(keepends=True))
    return any(json.loads(line).get("step", 0) >= 1 for line in lines if line.endswith("\n"))


if __name__ == "__main__":
    main(ROW, measured)
