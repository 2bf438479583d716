"""The model against runs that are made here: how operations compose into steps.

A run's operations are timed while it runs: calls of the sampler, which are fitted as a + b n for n requests, learning,
and the loop. From these, and the latencies of a slow environment, which it knows, the simulation predicts how long the
run's steps were: synchronous, and with batches drawn ahead. How long an operation takes on a busy machine is not
predicted; who waits for whom is.
"""

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import psutil

from benchmarks import models
from benchmarks.cluster_sim.driver import recipe
from benchmarks.cluster_sim.episodes import Episode
from benchmarks.cluster_sim.events import Clock, Line
from benchmarks.cluster_sim.model import Design, Simulation, settled
from benchmarks.cluster_sim.samplers import Drawing, Joined
from benchmarks.cluster_sim.slow import Known, Slow
from fettle.broker import Broker
from fettle.chat import Template, load_tokenizer
from fettle.config import LocalEngine, RayEngine, RLRun
from fettle.engine import Backend
from fettle.engine.local import LocalBackend
from fettle.tracking import RunFolder, Transcript
from fettle.training import Session, rl

Engine = Literal["local", "ray 1", "ray 2"]
DRAW, LEARN = "sample", ("forward_backward", "optim_step")


@dataclass(frozen=True, slots=True)
class Timed:
    """A real run: what a step took, once it went as it goes on, and what operations took. Seconds."""

    step: float
    call: float
    """A call of the sampler, and more of each request in it."""
    request: float
    learned: float
    """Forward, backward and the optimizer's step, of a batch."""
    looped: float
    """What the loop does beside, a step: its processor time, as much slower as the engine's calls were."""
    slower: float
    """The time of the engine's calls over that of their processor."""


class Here:
    """Satisfies ``Machine``: an engine of this machine, whose one thread draws and learns in turn."""

    beside = True

    def __init__(self, run: Timed) -> None:
        self.clock = Clock()
        self.trainer = Line(self.clock)
        self.drawing: Drawing = Joined(self.clock, self.trainer, lambda drawn: run.call + run.request * len(drawn))
        self.turn = self.ended = 0.0
        self._run = run

    def sent(self, episodes: Sequence[Episode]) -> float:
        """What the loop does with a batch."""
        return self._run.looped

    def learned(self, episodes: Sequence[Episode]) -> float:
        """As it was timed."""
        return self._run.learned

    def published(self) -> float:
        """The sampler reads the trainer's own tensors."""
        return 0.0

    spread = loaded = published


class Watched:
    """Satisfies ``Backend``: another one, whose calls are timed."""

    def __init__(self, backend: Backend, processor: Callable[[], float]) -> None:
        self._backend = backend
        self._processor = processor
        self.draws: list[tuple[int, float]] = []
        """Requests of a call, and its seconds."""
        self.learns = self.wall = self.cpu = 0.0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._backend, name)
        return self._timed(name, found) if name in (DRAW, *LEARN) else found

    def _timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*given: Any, **named: Any) -> Any:
            wall, cpu = time.perf_counter(), self._processor()
            found = call(*given, **named)
            seconds = time.perf_counter() - wall
            self.wall += seconds
            self.cpu += self._processor() - cpu
            if name == DRAW:
                self.draws.append((len(given[1]), seconds))
            else:
                self.learns += seconds
            return found

        return timed


@dataclass
class Ends:
    """When each step ended. Satisfies ``Tracker``."""

    seconds: list[float] = field(default_factory=list)

    def log(self, step: int, row: Mapping[str, float]) -> None:
        """A step is over."""
        if "time/step" in row:
            self.seconds.append(time.perf_counter())

    def transcripts(self, step: int, pages: Sequence[Transcript]) -> None:
        """Not looked at."""

    def close(self) -> None:
        """Nothing is held."""


@contextmanager
def watched(engine: Engine, place: RunFolder) -> Iterator[Watched]:
    """An engine of one thread a rank."""
    if engine == "local":
        local = LocalBackend(LocalEngine(threads=1, device="cpu"), checkpoints=place.checkpoints)
        yield Watched(local, time.thread_time)
        return
    from fettle.cluster.backend import ClusterBackend

    settings = RayEngine(workers=int(engine[-1]), threads=1, device="cpu", start_seconds=600.0)
    ranks = ClusterBackend(settings, checkpoints=place.checkpoints)
    try:
        processes = [psutil.Process(fact.pid) for fact in ranks.facts()]

        def processor() -> float:
            """Of this thread, and of a rank."""
            used = [process.cpu_times() for process in processes]
            return time.thread_time() + statistics.fmean(each.user + each.system for each in used)

        yield Watched(ranks, processor)
    finally:
        ranks.close()


def run_of(backend: Watched, place: RunFolder, known: Known, *, steps: int, max_staleness: int) -> Timed:
    """A real run, on whatever this machine has left for it."""
    ends = Ends()
    looped = time.thread_time()
    asyncio.run(_run(backend, known, place, ends, steps=steps, max_staleness=max_staleness))
    looped = time.thread_time() - looped
    first, last = settled(steps, max_staleness)
    request, call = statistics.linear_regression(*zip(*backend.draws, strict=True))
    slower = backend.wall / backend.cpu
    return Timed(
        step=(ends.seconds[last] - ends.seconds[first]) / (last - first),
        call=call,
        request=request,
        learned=backend.learns / steps,
        looped=slower * looped / steps,
        slower=slower,
    )


def predicted(run: Timed, known: Known, *, steps: int, max_staleness: int) -> float:
    """What the simulation makes of it: seconds of a step."""
    design = Design(1, 1, groups=known.groups, group_size=known.group_size, max_staleness=max_staleness)
    return Simulation(design, known, Here(run), steps=steps).run().seconds


def checked(known: Known, *, engines: Sequence[Engine], ahead: Sequence[int], steps: int) -> list[dict[str, Any]]:
    """A row for each run: predicted and measured."""
    rows: list[dict[str, Any]] = []
    for engine in engines:
        for each in ahead:
            with tempfile.TemporaryDirectory() as folder:
                place = RunFolder.at(Path(folder))
                with watched(engine, place) as backend:
                    run = run_of(backend, place, known, steps=steps, max_staleness=each)
            guess = predicted(run, known, steps=steps, max_staleness=each)
            row = {"engine": engine, "max_staleness": each, "predicted": guess, "error": guess / run.step - 1}
            rows.append({**row, **asdict(run), "load": os.getloadavg()[0]})
            print(rows[-1], file=sys.stderr, flush=True)
    return rows


async def _run(backend: Watched, known: Known, place: RunFolder, ends: Ends, *, steps: int, max_staleness: int) -> None:
    model = models.folder("tiny", ends=None)
    run = RLRun.model_validate(recipe(model, known, steps=steps, max_staleness=max_staleness))
    session = Session(place, ends, checkpoints=run.checkpoints, steps=steps, stop=asyncio.Event())
    session.stop_when(patience=None)
    broker = Broker(backend)
    try:
        template = Template(load_tokenizer(model))
        await rl.train(run, engine=broker, suites=[Slow(known)], template=template, session=session)
    finally:
        broker.close()
