"""Processes killed at random: the server, or one of four clients, by ``kill -9`` during a pipelined run.

Each of four tenants has a program of numbered operations, eight of them under way at once. Killed processes are started
again, and go on. At the end nothing that was acknowledged may be lost, nothing done twice, and both the answers and the
final weights must be, to the bit, those of a run in which nobody was killed.

Some kills hit the server while it recovers. Recovery is the time from a start after a kill until the server says that
it is ready, and so it holds what any start takes: importing torch and loading the model.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from benchmarks import models
from benchmarks.crash_client import SAMPLES, STEP
from benchmarks.harness import ROOT, Outcome, Row, Settings, main
from benchmarks.machine import Floor
from benchmarks.served import Service
from benchmarks.tables import table

ROW = Row(
    name="crash",
    work="acknowledged operations lost or doubled, answers or weights that differ, after random kills",
    peer="the same run without kills",
    target=0.0,
    better="lower",
    unit="",
)
TENANTS = ("ada", "ben", "cy", "dee")
KILLS, QUICK_KILLS = 200, 6
ALIVE = (0.1, 2.0)
"""Seconds between what was started last and the next kill."""
DURING_RECOVERY = 0.2
"""How many of the server's kills are followed by one before it is ready again."""


@dataclass(slots=True)
class Told:
    """What one tenant's program has written down."""

    taken: set[int] = field(default_factory=set)
    done: dict[int, set[str]] = field(default_factory=dict)
    draws: dict[str, set[str]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Run:
    """Four programs on one server, and what they came to."""

    told: dict[str, Told]
    weights: dict[str, str]
    """Of each tenant, a hash of its final adapter."""
    versions: dict[str, int]
    recoveries: list[float] = field(default_factory=list)
    kills: dict[str, int] = field(default_factory=dict)


class Programs:
    """The clients of a run."""

    def __init__(self, service: Service, folder: Path) -> None:
        self._service = service
        self._folder = folder
        self._tenants = {name: service.tenant(name) for name in TENANTS}
        self._runs = {name: tenant.run() for name, tenant in self._tenants.items()}
        self._samplers = {name: tenant.sampler() for name, tenant in self._tenants.items()}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        """Begin a program, or go on with it."""
        folder = self._folder / name
        folder.mkdir(exist_ok=True)
        tenant = self._tenants[name]
        command = [sys.executable, "-m", "benchmarks.crash_client", self._service.url, tenant.key]
        command += [self._runs[name], self._samplers[name], str(folder)]
        with (folder / "log").open("ab") as log:
            self._processes[name] = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)

    def kill(self, name: str) -> None:
        """End a program at once."""
        self._processes[name].kill()
        self._processes[name].wait()

    def furthest(self) -> int:
        """The most operations that any of them has had acknowledged."""
        return max(max(told_by(self._folder / name).taken, default=0) for name in TENANTS)

    def finish(self, operations: int) -> None:
        """Let them come to their end, which is the same for all.

        Raises:
            SystemExit: a program failed; what it wrote is passed on.
        """
        for name in TENANTS:
            scratch = self._folder / name / ".last"
            scratch.write_text(str(operations))
            scratch.rename(self._folder / name / "last")
        for name, process in self._processes.items():
            if process.wait():
                words = (self._folder / name / "log").read_text()[-2000:]
                raise SystemExit(f"the program of {name} failed:\n{words}\n{told_by(self._folder / name).wrong}")

    def found(self) -> Run:
        """What they came to, with their final weights."""
        weights, versions = {}, {}
        for name, tenant in self._tenants.items():
            versions[name] = tenant.version(self._runs[name])
            weights[name] = tenant.saved(self._runs[name], "final")
        return Run({name: told_by(self._folder / name) for name in TENANTS}, weights, versions)


def measured(settings: Settings, floor: Floor, *, kills: int | None = None) -> Outcome:
    """The row: a run with kills, then one of as many operations without."""
    count = kills if kills is not None else (QUICK_KILLS if settings.quick else KILLS)
    model = models.folder("tiny", ends=None)
    with tempfile.TemporaryDirectory() as folder:
        struck, operations = with_kills(model, Path(folder) / "struck", settings, count)
        calm = without_kills(model, Path(folder) / "calm", settings, operations)
    faults = judged(struck, calm, operations)
    median, worst = statistics.median(struck.recoveries or [0.0]), max(struck.recoveries, default=0.0)
    rows = [[name, str(number)] for name, number in faults.items()]
    rows += [[f"kills of {whom}", str(number)] for whom, number in struck.kills.items()]
    rows += [["operations", str(operations * len(TENANTS))]]
    rows += [["recovery, median", f"{median:.2f} s"], ["recovery, worst", f"{worst:.2f} s"]]
    print(table(["", "found"], rows), file=sys.stderr)
    return Outcome(
        float(sum(faults.values())),
        {
            **faults,
            "kills": struck.kills,
            "operations": operations * len(TENANTS),
            "recovery_seconds": {"median": median, "worst": worst, "n": len(struck.recoveries)},
        },
        {"operations": operations * len(TENANTS), "weights": calm.weights},
        notes=[wrong for told in struck.told.values() for wrong in told.wrong[:3]],
        further={name: not number for name, number in faults.items()},
    )


def with_kills(model: str, folder: Path, settings: Settings, count: int) -> tuple[Run, int]:
    """The run in which processes are killed, and how many operations each tenant had in the end."""
    rng, recoveries = Random("kills"), list[float]()
    kills = {"the server": 0, "a client": 0, "the server while it recovered": 0}
    with Service(model, folder, threads=settings.threads) as service:
        programs = Programs(service, folder)
        for name in TENANTS:
            programs.start(name)
        while sum(kills.values()) < count:
            time.sleep(rng.uniform(*ALIVE))
            if rng.random() < 0.5:
                name = rng.choice(TENANTS)
                programs.kill(name)
                programs.start(name)
                kills["a client"] += 1
                continue
            service.server.kill()
            kills["the server"] += 1
            while rng.random() < DURING_RECOVERY and sum(kills.values()) < count:
                service.server.spawn()
                time.sleep(rng.uniform(0.0, 2 * statistics.median(recoveries or [3.0])))
                service.server.kill()
                kills["the server while it recovered"] += 1
            recoveries.append(service.server.start())
            print(f"{sum(kills.values())} kills, recovered in {recoveries[-1]:.1f} s", file=sys.stderr, flush=True)
        operations = (programs.furthest() // STEP + 5) * STEP
        programs.finish(operations)
        found = programs.found()
    found.recoveries, found.kills = recoveries, kills
    return found, operations


def without_kills(model: str, folder: Path, settings: Settings, operations: int) -> Run:
    """The same programs, undisturbed."""
    with Service(model, folder, threads=settings.threads) as service:
        programs = Programs(service, folder)
        for name in TENANTS:
            programs.start(name)
        programs.finish(operations)
        return programs.found()


def judged(struck: Run, calm: Run, operations: int) -> dict[str, int]:
    """How much is not as it should be."""
    expected = set(range(operations))
    told, untroubled = struck.told, calm.told
    return {
        "acknowledged operations lost": sum(len(told[name].taken - set(told[name].done)) for name in TENANTS),
        "operations missing": sum(len(expected - set(told[name].done)) for name in TENANTS),
        "operations doubled": sum(abs(struck.versions[name] - operations // STEP) for name in TENANTS),
        "operations with two answers": sum(len(found) > 1 for name in TENANTS for found in told[name].done.values()),
        "answers that differ": sum(
            told[name].done.get(seq) != untroubled[name].done.get(seq) for name in TENANTS for seq in expected
        ),
        "draws that went wrong": sum(
            found != {str(SAMPLES)} for name in TENANTS for found in told[name].draws.values()
        ),
        "weights that differ": sum(struck.weights[name] != calm.weights[name] for name in TENANTS),
        "errors told to clients": sum(len(told[name].wrong) for name in TENANTS),
    }


def told_by(folder: Path) -> Told:
    """What a program wrote down; a last line that was cut off is left out."""
    found = Told()
    path = folder / "told"
    text = path.read_text() if path.exists() else ""
    for line in text[: text.rfind("\n") + 1].splitlines():
        word, _, rest = line.partition(" ")
        number, _, what = rest.partition(" ")
        if word == "taken":
            found.taken.add(int(number))
        elif word == "done":
            found.done.setdefault(int(number), set()).add(what)
        elif word == "draw":
            found.draws.setdefault(number, set()).add(what)
        else:
            found.wrong.append(rest)
    return found


if __name__ == "__main__":
    main(ROW, measured, kills=f"how many processes are killed ({KILLS})")
