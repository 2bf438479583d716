"""The model against runs that are made here: costs measured apart, steps predicted, steps timed.

An engine's costs are processor time, fitted to what is no part of the runs: a call of the sampler as a + b n for n
requests, a step as c + d n for n episodes. From these, and the latencies of a slow environment, which it knows, the
simulation predicts the steps of runs: synchronous, and with batches drawn ahead. A busy machine takes longer than
processors do; how much longer is taken from the run itself, over the engine's calls, and told beside the prediction. A
second rank on Ray is predicted from the costs of one.
"""

import asyncio
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import psutil

from benchmarks import models
from benchmarks.cluster_sim.driver import LETTERS, recipe
from benchmarks.cluster_sim.episodes import Episode
from benchmarks.cluster_sim.events import Clock, Line
from benchmarks.cluster_sim.model import Design, Simulation, settled
from benchmarks.cluster_sim.samplers import Drawing, Joined
from benchmarks.cluster_sim.slow import Known, Slow
from fettle.broker import Broker
from fettle.chat import Template, load_tokenizer
from fettle.config import LocalEngine, PolicySpec, RayEngine, RLRun, SamplingParams
from fettle.engine import Backend, SampleRequest
from fettle.engine.local import LocalBackend
from fettle.tracking import RunFolder, Transcript
from fettle.training import Session, rl

Engine = Literal["local", "ray 1", "ray 2"]
CALLS = (1, 8, 32)
"""Requests of the calls that a + b n is fitted to."""
DRAWS, LEARNS = ("sample",), ("forward_backward", "optim_step")


@dataclass(frozen=True, slots=True)
class Fitted:
    """What one engine costs, in seconds of a processor."""

    call: float
    request: float
    step: float
    episode: float
    driver: float
    """Of the loop, for a step."""
    turn: float
    """Of the loop, for a turn of an episode."""
    ranks: int = 1

    def drawn(self, requests: int) -> float:
        """A call of so many requests, shared out among the ranks."""
        return self.call + self.request * -(-requests // self.ranks)

    def learned(self, episodes: int) -> float:
        """From a batch to new weights."""
        return self.step + self.episode * -(-episodes // self.ranks)


class Here:
    """Satisfies ``Machine``: an engine of this machine, whose one thread draws and learns in turn."""

    beside = True

    def __init__(self, costs: Fitted, slower: float) -> None:
        """All takes ``slower`` times as long as it takes a processor."""
        self.clock = Clock()
        self.trainer = Line(self.clock)
        self.drawing: Drawing = Joined(self.clock, self.trainer, lambda drawn: slower * costs.drawn(len(drawn)))
        self.turn, self.ended = slower * costs.turn, 0.0
        self._costs, self._slower = costs, slower

    def sent(self, episodes: Sequence[Episode]) -> float:
        """What the loop does with a batch."""
        return self._slower * self._costs.driver

    def learned(self, episodes: Sequence[Episode]) -> float:
        """As fitted."""
        return self._slower * self._costs.learned(len(episodes))

    def published(self) -> float:
        """The sampler reads the trainer's own tensors."""
        return 0.0

    spread = loaded = published


class Watched:
    """Satisfies ``Backend``: another one, whose calls are timed."""

    def __init__(self, backend: Backend, processor: Callable[[], float]) -> None:
        self._backend = backend
        self._processor = processor
        self.wall: dict[str, float] = {}
        self.cpu: dict[str, float] = {}

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._backend, name)
        return self._timed(name, found) if name in DRAWS + LEARNS else found

    def forget(self) -> None:
        """What was timed so far."""
        self.wall, self.cpu = {}, {}

    def _timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*given: Any, **named: Any) -> Any:
            wall, cpu = time.perf_counter(), self._processor()
            try:
                return call(*given, **named)
            finally:
                self.wall[name] = self.wall.get(name, 0.0) + time.perf_counter() - wall
                self.cpu[name] = self.cpu.get(name, 0.0) + self._processor() - cpu

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


@dataclass(frozen=True, slots=True)
class Timed:
    """A real run."""

    seconds: float
    """Of a step, once it goes as it goes on."""
    slower: float
    """The engine's calls: their time over that of the processor."""
    learns: float
    """Processor time of a step's learning."""
    driver: float
    """Processor time of the loop, for a step."""


@contextmanager
def watched(engine: Engine, place: RunFolder) -> Iterator[Watched]:
    """An engine of one thread a rank."""
    if engine == "local":
        local = LocalBackend(LocalEngine(threads=1, device="cpu"), checkpoints=place.checkpoints)
        yield Watched(local, time.thread_time)
        return
    from fettle.cluster import ClusterBackend

    settings = RayEngine(workers=int(engine[-1]), threads=1, device="cpu")
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


def fitted(backend: Watched, place: RunFolder, known: Known, turn: float) -> Fitted:
    """The costs of an engine of one rank; the loop's ``turn`` is measured without one."""
    calls = {n: _call(backend, known, n) for n in CALLS}
    request = (calls[CALLS[-1]] - calls[CALLS[0]]) / (CALLS[-1] - CALLS[0])
    at_once = replace(known, latency=0.0)
    whole, half = (
        run_of(backend, place, replace(at_once, groups=n), steps=4, max_staleness=0)
        for n in (known.groups, known.groups // 2)
    )
    episodes = known.groups * known.group_size
    episode = max(0.0, (whole.learns - half.learns) / (episodes / 2))
    driver = max(0.0, whole.driver - turn * episodes * known.turns)
    return Fitted(calls[1] - request, request, whole.learns - episode * episodes, episode, driver, turn)


def run_of(backend: Watched, place: RunFolder, known: Known, *, steps: int, max_staleness: int) -> Timed:
    """A real run, on whatever this machine has left for it."""
    ends = Ends()
    _clear(place)
    backend.forget()
    driver = time.thread_time()
    asyncio.run(_run(backend, known, place, ends, steps=steps, max_staleness=max_staleness))
    driver = time.thread_time() - driver
    first, last = settled(steps, max_staleness)
    return Timed(
        seconds=(ends.seconds[last] - ends.seconds[first]) / (last - first),
        slower=sum(backend.wall.values()) / sum(backend.cpu.values()),
        learns=sum(backend.cpu[name] for name in LEARNS) / steps,
        driver=driver / steps,
    )


def predicted(costs: Fitted, known: Known, slower: float, *, steps: int, max_staleness: int) -> float:
    """What the simulation makes of it: seconds of a step."""
    design = Design(1, 1, groups=known.groups, group_size=known.group_size, max_staleness=max_staleness)
    return Simulation(design, known, Here(costs, slower), steps=steps).run().seconds


def checked(
    known: Known, turn: float, *, engines: Sequence[Engine], ahead: Sequence[int], steps: int, repetitions: int
) -> list[dict[str, Any]]:
    """A row for each run: predicted and measured."""
    rows: list[dict[str, Any]] = []
    costs: Fitted | None = None
    for engine in engines:
        with tempfile.TemporaryDirectory() as folder:
            place = RunFolder.at(Path(folder))
            with watched(engine, place) as backend:
                if engine == "ray 2":
                    assert costs is not None, "they are those of ray 1"
                    costs = replace(costs, ranks=2)
                else:
                    costs = fitted(backend, place, known, turn)
                for repetition in range(repetitions):
                    for each in ahead:
                        found = run_of(backend, place, known, steps=steps, max_staleness=each)
                        guess = predicted(costs, known, found.slower, steps=steps, max_staleness=each)
                        rows.append(_row(engine, each, repetition, guess, found, costs))
                        print(rows[-1], file=sys.stderr, flush=True)
    return rows


def _row(engine: Engine, ahead: int, repetition: int, guess: float, found: Timed, costs: Fitted) -> dict[str, Any]:
    return {
        "engine": engine,
        "max_staleness": ahead,
        "repetition": repetition,
        "predicted": guess,
        "measured": found.seconds,
        "error": guess / found.seconds - 1,
        "slower": found.slower,
        "call": costs.call,
        "request": costs.request,
        "step": costs.step,
        "episode": costs.episode,
        "driver": costs.driver,
        "load": os.getloadavg()[0],
    }


def _call(backend: Watched, known: Known, requests: int) -> float:
    """The processor time of a call that draws as a turn of the run does, at the median."""
    backend.create_policy("fitted", PolicySpec(model=models.folder("tiny", ends=None)))
    weights, _ = backend.pin("fitted")
    params = SamplingParams(max_tokens=known.drawn, continued=True)
    seconds = []
    for repetition in range(5):
        prompts = [[LETTERS + (7 * repetition + 3 * i + place) % 26 for place in range(20)] for i in range(requests)]
        backend.forget()
        backend.sample([weights] * requests, [SampleRequest(prompt, 1, params) for prompt in prompts])
        seconds.append(backend.cpu["sample"])
    backend.unpin(weights)
    backend.close_policy("fitted")
    return statistics.fmean(seconds[1:])


def _clear(place: RunFolder) -> None:
    """Forget the run that was there; what a backend keeps for itself stays."""
    for each in (*place.path.iterdir(), *place.checkpoints.iterdir()):
        if each == place.checkpoints or each.name.startswith("."):
            continue
        shutil.rmtree(each) if each.is_dir() else each.unlink()


async def _run(backend: Watched, known: Known, place: RunFolder, ends: Ends, *, steps: int, max_staleness: int) -> None:
    model = models.folder("tiny", ends=None)
    run = RLRun.model_validate(recipe(model, known, steps=steps, max_staleness=max_staleness))
    session = Session(RunFolder.at(place.path), ends, checkpoints=run.checkpoints, steps=steps, stop=asyncio.Event())
    session.stop_when(patience=None)
    broker = Broker(backend)
    try:
        template = Template(load_tokenizer(model))
        await rl.train(run, engine=broker, suites=[Slow(known)], template=template, session=session)
    finally:
        broker.close()
