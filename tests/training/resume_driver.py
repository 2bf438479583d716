"""Runs trainings in child processes, kills them with SIGKILL in random steps, resumes, and compares the weights.

Everything is imported once and each run is a fork, so that many kills take seconds. Reads one JSON line for each
recipe, and answers it with one.
"""

import asyncio
import hashlib
import json
import os
import random
import signal
import sys
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path

import fettle.tracking.plots  # noqa: F401 - with it a run ends
from fettle.cli import build
from fettle.config.load import load
from fettle.tracking import RunFolder
from fettle.training import Callback


class Doomed:
    """Satisfies ``Callback``: kills its process in the step after ``step``, or on the way to it."""

    def __init__(self, step: int, share: float) -> None:
        self._step = step
        self._share = share

    def after_step(self, step: int, row: Mapping[str, float]) -> bool:
        if step == self._step:
            moment = self._share * row["time/step"]
            threading.Timer(moment, os.kill, (os.getpid(), signal.SIGKILL)).start()
        return False

    def after_evaluation(self, step: int, score: float, row: Mapping[str, float]) -> bool:
        return False


def trained(recipe: Path, folder: Path, *callbacks: Callback) -> int:
    """Start or resume the run in ``folder`` in a child; returns how it ended, as ``waitpid`` tells."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    code = 1
    try:
        asyncio.run(build.run(load(recipe), RunFolder.at(folder), callbacks=callbacks))
        code = 0
    finally:
        if code:
            traceback.print_exc()
        os._exit(code)


def digest(folder: Path) -> str:
    """Of every weight and moment of the newest checkpoint, and of the metrics that do not speak of time or process."""
    progress = json.loads((folder / "progress.json").read_text())
    hasher = hashlib.sha256()
    for path in sorted((folder / "checkpoints").glob(f"{progress['checkpoint']}*/*.safetensors")):
        hasher.update(path.read_bytes())
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    kept = [{k: v for k, v in row.items() if not k.startswith(("time", "speed", "engine"))} for row in rows]
    hasher.update(json.dumps(kept, sort_keys=True).encode())
    return hasher.hexdigest()


def outcomes(recipe: Path, scratch: Path, kills: int) -> list[dict[str, object]]:
    """Of ``kills`` disturbed runs, each compared with an undisturbed one."""
    run = load(recipe)
    assert trained(recipe, scratch / "straight") == 0
    straight = digest(scratch / "straight")
    rng = random.Random("kills")
    found: list[dict[str, object]] = []
    for kill in range(kills):
        folder = scratch / f"killed-{kill}"
        # The first checkpoint is whole when the second is begun; the second may not be.
        doomed = Doomed(rng.randrange(2 * run.checkpoints.every + 1, run.steps), rng.random())
        killed = os.WIFSIGNALED(trained(recipe, folder, doomed))
        step = json.loads((folder / "progress.json").read_text())["step"]
        assert trained(recipe, folder) == 0
        found.append({"resumed_at": step, "killed": killed, "same": digest(folder) == straight})
    return found


if __name__ == "__main__":
    for line in sys.stdin:
        asked = json.loads(line)
        sys.stdout.write(json.dumps(outcomes(Path(asked["recipe"]), Path(asked["scratch"]), asked["kills"])) + "\n")
        sys.stdout.flush()
