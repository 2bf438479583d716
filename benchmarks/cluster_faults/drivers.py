"""The process of ``fettle train --engine ray``, which is killed or asked to end; ``--resume`` goes on."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from benchmarks.cluster_faults.runs import OF_THE_MACHINE
from benchmarks.cluster_faults.trials import Found
from benchmarks.harness import ROOT
from benchmarks.served import FETTLE

RECIPE = """\
type: rl
name: struck
preset: grpo
policy: {model: {type: tiny, hidden: 32, layers: 1, heads: 2}, lora: {rank: 4}}
engine: {type: ray, workers: 2, threads: 1, start_seconds: 600}
environments: [{type: arithmetic, digits: 1, heldout: 4, system: null}]
steps: 6
groups_per_step: 2
group_size: 3
sampling: {max_tokens: 6}
evaluation: {every: 3, tasks: 4}
checkpoints: {every: 1}
"""
GONE_S = 90.0
"""Seconds after which nothing may be left of a run whose process was killed: helpers of Ray take a minute."""
PATIENCE_S = 900.0
INTERRUPTED = 130


class Driver:
    """A process that trains, and what it has begun."""

    def __init__(self, *arguments: str, folder: Path) -> None:
        variables = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
        command = [sys.executable, *FETTLE, "train", *arguments]
        self._said = (folder / "said").open("a+b")
        self.process = subprocess.Popen(
            command, cwd=folder, env=variables, stdout=self._said, stderr=self._said, start_new_session=True
        )
        self._begun: dict[int, tuple[psutil.Process, str]] = {}
        self._look = threading.Thread(target=self._watch, daemon=True)
        self._look.start()

    def left(self, of: str = "") -> int:
        """How many of its processes, or of those that are called so, still run."""
        return sum(_runs(each) for each, name in list(self._begun.values()) if of in name)

    def gone(self, of: str = "") -> float:
        """Seconds until none of them ran, or ``GONE_S`` where some still do."""
        started = time.perf_counter()
        while self.left(of) and time.perf_counter() - started < GONE_S:
            time.sleep(0.05)
        return time.perf_counter() - started

    def end(self) -> int:
        """How it ended by itself."""
        code = self.process.wait(PATIENCE_S)
        self._look.join()
        self._said.close()
        return code

    def _watch(self) -> None:
        while self.process.poll() is None:
            try:
                for each in psutil.Process(self.process.pid).children(recursive=True):
                    self._begun[each.pid] = each, " ".join(each.cmdline())
            except psutil.Error:
                continue
            time.sleep(0.1)


def of_drivers(folder: Path, kills: int, chance: random.Random) -> Found:
    """SIGKILL to one run's process, again and again; each time it is resumed."""
    found, ranks, all_, left = Found("the driver"), list[float](), list[float](), 0
    (folder / "recipe.yaml").write_text(RECIPE)
    with _run(folder / "alone", folder / "recipe.yaml") as driver:
        assert driver.end() == 0, (folder / "alone" / "said").read_text()
    arguments = [str(folder / "recipe.yaml")]
    place = folder / "struck"
    place.mkdir()
    while found.kills < kills and not _finished(place):
        started = time.perf_counter()
        driver = _further(arguments, place)
        if found.kills:
            found.seconds.append(time.perf_counter() - started)
        time.sleep(chance.uniform(0.0, 0.5))
        driver.process.send_signal(signal.SIGKILL)
        driver.end()
        found.kills += 1
        ranks.append(driver.gone("ray::Rank"))
        all_.append(ranks[-1] + driver.gone())
        left += driver.left()
        arguments = ["--resume", str(next((place / "runs").iterdir()))]
        print(f"the driver: {found.kills} kills, nothing left after {all_[-1]:.1f} s, {_rows(place)} rows", flush=True)
    _ended(Driver(*arguments, folder=place), place)
    _compared(found, folder / "alone", place)
    gone = {"ranks_gone_seconds_max": round(max(ranks), 2), "gone_seconds_max": round(max(all_), 2)}
    found.notes = {"left_running": left, **gone}
    return found


def of_requests_to_end(folder: Path, kills: int, chance: random.Random) -> Found:
    """SIGTERM to one run's process, again and again: it saves and ends by itself; each time it is resumed."""
    found, left = Found("a request to end (SIGTERM to the driver)"), 0
    (folder / "recipe.yaml").write_text(RECIPE)
    with _run(folder / "alone", folder / "recipe.yaml") as driver:
        assert driver.end() == 0, (folder / "alone" / "said").read_text()
    arguments, place = [str(folder / "recipe.yaml")], folder / "struck"
    place.mkdir()
    code = INTERRUPTED
    while found.kills < kills and code == INTERRUPTED:
        driver = _further(arguments, place)
        time.sleep(chance.uniform(0.0, 0.2))
        asked = time.perf_counter()
        driver.process.send_signal(signal.SIGTERM)
        code = driver.end()
        found.seconds.append(time.perf_counter() - asked)
        found.kills += 1
        left += driver.left()
        said = (place / "said").read_text()
        assert (code, "go on with" in said) == (INTERRUPTED, True) or code == 0, said
        arguments = ["--resume", str(next((place / "runs").iterdir()))]
        print(f"asked to end: {found.kills} times, exit code {code}, {found.seconds[-1]:.1f} s", flush=True)
    _ended(Driver(*arguments, folder=place), place)
    _compared(found, folder / "alone", place)
    found.notes = {"left_running": left, "exit_code": INTERRUPTED}
    return found


@contextmanager
def _run(folder: Path, recipe: Path) -> Iterator[Driver]:
    folder.mkdir()
    driver = Driver(str(recipe), folder=folder)
    try:
        yield driver
    finally:
        if driver.process.poll() is None:
            driver.process.kill()


def _ended(driver: Driver, place: Path) -> None:
    assert driver.end() == 0, (place / "said").read_text()


def _compared(found: Found, alone: Path, place: Path) -> None:
    one, other = _told(alone), _told(place)
    found.runs, found.survived = 1, 1
    found.differences = {
        "operations": len(one["rows"]),
        "lost": len([row for row in one["rows"] if row not in other["rows"]]),
        "doubled": len(other["rows"]) - len({json.dumps(row) for row in other["rows"]}),
        "rows_that_differ": sum(a != b for a, b in zip(one["rows"], other["rows"], strict=False)),
        "weights_differ": int(one["weights"] != other["weights"]),
    }


def _told(place: Path) -> Mapping[str, Any]:
    run = next((place / "runs").iterdir())
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    found = hashlib.sha256()
    for path in sorted((run / "checkpoints").glob("[!.]*/*.safetensors")):
        found.update(f"{path.parent.name}/{path.name}".encode() + path.read_bytes())
    rows = [{k: v for k, v in line.items() if k != "time" and not k.startswith(OF_THE_MACHINE)} for line in lines]
    return {"rows": rows, "weights": found.hexdigest()}


def _rows(place: Path) -> int:
    return sum(len(path.read_text().splitlines()) for path in place.glob("runs/*/metrics.jsonl"))


def _finished(place: Path) -> bool:
    return any(place.glob("runs/*/checkpoints/step-000006"))


def _further(arguments: Sequence[str], place: Path) -> Driver:
    """A process that has come further than the one before, or has ended."""
    before, driver = _rows(place), Driver(*arguments, folder=place)
    while _rows(place) <= before and driver.process.poll() is None:
        time.sleep(0.02)
    return driver


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False
