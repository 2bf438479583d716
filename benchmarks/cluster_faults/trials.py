"""Trials: a kind of run without kills, then with some, on ranks, beside samplers, with workers that play."""

import random
import shutil
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from threading import Timer
from typing import Any

from benchmarks.cluster_faults import runs
from benchmarks.cluster_faults.runs import Run, compared, made, settings
from benchmarks.cluster_faults.struck import Strike, killer
from fettle.cluster.actors import begun
from fettle.cluster.backend import ClusterBackend
from fettle.cluster.beside import SampledBeside
from fettle.cluster.environments import EnvironmentWorkers
from fettle.cluster.parity import Parity
from fettle.cluster.pool import Pool
from fettle.cluster.session import connected
from fettle.config import JSONL, ActorSamplers, LocalEngine, RayEngine, RayWorkers
from fettle.engine.local import LocalBackend
from fettle.environments import suite

KILLS_A_RUN = 5
RECOVERING = (1.0, 8.0)
"""Seconds after a kill that another comes, where it is to fall into the recovery."""


@dataclass(slots=True)
class Found:
    """What trials of one kind came to."""

    what: str
    kills: int = 0
    runs: int = 0
    survived: int = 0
    during: dict[str, int] = field(default_factory=dict)
    differences: dict[str, float] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)

    def add(self, run: Run, expected: Run, *, bits: bool = True) -> None:
        """One more run that came to its end, where it should be as without kills, to the ``bits`` or but for them."""
        self.runs += 1
        self.survived += 1
        self.kills += len(run.during)
        self.seconds += run.recovered
        for name in run.during:
            self.during[name or "between two"] = self.during.get(name or "between two", 0) + 1
        for name, value in compared(run, expected, bits=bits).items():
            before = self.differences.get(name, 0)
            self.differences[name] = max(before, value) if name == "largest_difference" else before + value

    def told(self) -> dict[str, Any]:
        """As it is printed."""
        return {
            "what": self.what,
            "kills": self.kills,
            "runs": self.runs,
            "survived": self.survived,
            **self.differences,
            "seconds": spread(self.seconds),
            "during": dict(sorted(self.during.items())),
            **self.notes,
        }


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """The median, the 95th percentile and the most."""
    ordered = sorted(seconds)
    if not ordered:
        return {}
    near = ordered[min(len(ordered) - 1, round(0.95 * (len(ordered) - 1)))]
    return {"p50": round(statistics.median(ordered), 2), "p95": round(near, 2), "max": round(ordered[-1], 2)}


def of_ranks(folder: Path, kills: int, chance: random.Random, *, workers: int = 2) -> Found:
    """SIGKILL to one of the ranks, or to two, the second while the first is being replaced."""
    name, found = runs.model(folder / "model"), Found("a rank")
    engine = RayEngine(workers=workers, threads=1, start_seconds=600, repeated_seconds=0.3)
    backend = ClusterBackend(engine, checkpoints=folder / "checkpoints")
    with ExitStack() as stack:
        stack.callback(backend.close)
        kinds = list(runs.KINDS)[: max(1, min(len(runs.KINDS), kills // KILLS_A_RUN))]
        expected = {kind: alone(backend, kind, name, folder) for kind in kinds}
        for number, kind in _until(lambda: found.kills < kills, kinds):
            due = min(KILLS_A_RUN, kills - found.kills)
            strikes = _strikes(expected[kind], due, chance, "Rank", workers)
            place = emptied(folder / "checkpoints", folder / f"run-{number}")
            run = made(backend, settings(kind, name), place, strikes=strikes)
            found.add(run, expected[kind])
            say(found, kind)
        found.notes = {"ranks_replaced": backend.replaced, "ranks": workers}
    return found


def of_samplers(folder: Path, kills: int, chance: random.Random) -> Found:
    """SIGKILL to one of two sampler actors, beside a trainer in this process, as it draws or is sent weights."""
    name, found = runs.model(folder / "model"), Found("a sampler")
    trainer = LocalBackend(LocalEngine(threads=1), checkpoints=folder / "checkpoints")
    kind, samplers, engine = "GRPO, an adapter", ActorSamplers(count=2), RayEngine(start_seconds=600)
    with ExitStack() as stack:
        stack.callback(connected(engine, processors=samplers.count))
        beside = SampledBeside(trainer, Pool(begun(samplers, engine), look=0.5), Parity(samplers.parity))
        stack.callback(beside.close)
        expected = alone(beside, kind, name, folder)
        for number, _ in _until(lambda: found.kills < kills, [kind]):
            drawn = [at for at, told in enumerate(expected.told) if told.name in ("sample", "pin")]
            at = chance.choice(drawn)
            strike = Strike(killer("SamplerActor", chance.randrange(2)), chance.uniform(0, expected.told[at].seconds))
            place = emptied(folder / "checkpoints", folder / f"run-{number}")
            run = made(beside, settings(kind, name), place, strikes={at: strike})
            found.add(run, expected, bits=False)  # replies that another draws are drawn in another batch
            say(found, kind)
            for seat in beside._pool._seats.values():  # as many as there were, for the next
                seat.wait()  # type: ignore[attr-defined]
        found.notes = {"drawn_by_the_trainer": beside.statistics()["samplers/by_trainer"], "samplers": 2}
    return found


def of_environments(folder: Path, kills: int, chance: random.Random) -> Found:
    """SIGKILL to one of two processes that play, whose rewards take a while, at any time of the run."""
    name, found = runs.model(folder / "model"), Found("an environment worker")
    reward = {"reward": "benchmarks.cluster_faults.paying:soon", "answer_in": "text"}
    world = JSONL.model_validate({"path": str(_questions(folder)), "heldout": 4, "system": None, **reward})
    trainer = LocalBackend(LocalEngine(threads=1), checkpoints=folder / "checkpoints")
    run = settings("GRPO, an adapter", name, environments=[world])
    workers = EnvironmentWorkers(RayWorkers(count=2, joined_seconds=60, start_seconds=600), [world])
    with ExitStack() as stack:
        stack.callback(workers.close)
        suites = [workers.suite(0, suite(world))]
        expected = made(trainer, run, folder / "alone", suites=suites)
        for number, _ in _until(lambda: found.kills < kills, [""]):
            place = emptied(folder / "checkpoints", folder / f"run-{number}")
            at = chance.randrange(1, len(expected.told))
            strike = Strike(killer("Host", chance.randrange(2)), chance.uniform(0.0, 0.3))
            struck = made(trainer, run, place, strikes={at: strike}, suites=suites)
            struck.recovered = [max(0.0, struck.seconds - expected.seconds)]
            found.add(struck, expected)
            say(found, "GRPO")
        found.notes = {"workers_replaced": workers.replaced, "workers": 2}
    return found


def alone(backend: Any, kind: str, name: str, folder: Path) -> Run:
    """The run in which nobody is killed."""
    return made(backend, settings(kind, name), emptied(folder / "checkpoints", folder / f"alone {kind}"))


def _strikes(expected: Run, kills: int, chance: random.Random, actor: str, workers: int) -> Mapping[int, Strike]:
    """At operations that are far enough from each other, half of them begun; one in five strikes a second time."""
    places = sorted(chance.sample(range(len(expected.told)), kills))
    strikes = {}
    for at in places:
        midst = chance.uniform(0.0, expected.told[at].seconds) if chance.random() < 0.7 else 0.0
        strikes[at] = Strike(_again(killer(actor, chance.randrange(workers)), actor, chance), midst)
    return strikes


def _again(
    first: Callable[[], Callable[[], None] | None], actor: str, chance: random.Random
) -> Callable[[], Callable[[], None] | None]:
    """The same, and once in five times another one while that is being replaced."""
    later, place = chance.uniform(*RECOVERING), chance.randrange(2)
    if chance.random() > 0.2:
        return first

    def found() -> Callable[[], None] | None:
        kill = first()

        def both() -> None:
            if kill is not None:
                kill()
            other = Timer(later, lambda: (killer(actor, place)() or (lambda: None))())
            other.start()

        return both

    return found


def _until(so: Callable[[], bool], kinds: Sequence[str]) -> Iterator[tuple[int, str]]:
    number = 0
    while so():
        yield number, kinds[number % len(kinds)]
        number += 1


def emptied(checkpoints: Path, place: Path) -> Path:
    """A new run's place, with nothing of others among the checkpoints."""
    for path in checkpoints.glob("[!.]*"):
        shutil.rmtree(path)
    return place


def _questions(folder: Path) -> Path:
    path = folder / "questions.jsonl"
    path.write_text("".join(f'{{"prompt": "Paint {n} red", "answer": "{n}"}}\n' for n in range(40)))
    return path


def say(found: Found, kind: str) -> None:
    """How it goes."""
    worst = {name: value for name, value in found.differences.items() if value and name != "operations"}
    print(f"{found.what}: {found.kills} kills, {found.runs} runs ({kind}), {worst or 'all alike'}", flush=True)
