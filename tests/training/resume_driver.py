"""Runs trainings in child processes, kills them with SIGKILL at random moments, resumes, and compares the weights.

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
import time
import traceback
from pathlib import Path

from fettle.cli import build
from fettle.config.load import load
from fettle.tracking import RunFolder


def trained(recipe: Path, folder: Path) -> int:
    """Start or resume the run in ``folder`` in a child; returns its pid."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        asyncio.run(build.run(load(recipe), RunFolder.at(folder)))
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
    started = time.monotonic()
    assert os.waitpid(trained(recipe, scratch / "straight"), 0)[1] == 0
    seconds = time.monotonic() - started
    straight = digest(scratch / "straight")
    rng = random.Random("kills")
    found: list[dict[str, object]] = []
    for kill in range(kills):
        folder = scratch / f"killed-{kill}"
        progress = folder / "progress.json"
        child = trained(recipe, folder)
        moment = time.monotonic() + seconds * rng.uniform(0.1, 0.95)
        # The first falls behind a checkpoint however fast the machine is by then; the others fall anywhere.
        while not progress.is_file() if kill == 0 else time.monotonic() < moment:
            time.sleep(0.001)
        os.kill(child, signal.SIGKILL)
        died_running = os.WIFSIGNALED(os.waitpid(child, 0)[1])
        step = json.loads(progress.read_text())["step"] if progress.is_file() else 0
        assert os.waitpid(trained(recipe, folder), 0)[1] == 0
        found.append({"resumed_at": step, "killed": died_running, "same": digest(folder) == straight})
    return found


if __name__ == "__main__":
    for line in sys.stdin:
        asked = json.loads(line)
        sys.stdout.write(json.dumps(outcomes(Path(asked["recipe"]), Path(asked["scratch"]), asked["kills"])) + "\n")
        sys.stdout.flush()
