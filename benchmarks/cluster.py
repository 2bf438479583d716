"""What a cluster costs and gives, on this machine: ``python -m benchmarks.cluster --json``.

Real Ray, one thread for each rank, gloo. Rows:

- ``equality``: one run of GRPO on each engine, held against the local one: metrics, and what the final weights say.
- ``operations``: seconds of an operation and of a step of a tiny model, where nearly all is control.
- ``first_step``: seconds from nothing to the first row of metrics, the start of Ray included.
- ``saving``: how long a step waits for a checkpoint with its optimizer, and how long until that is whole.
- ``sync``: how many bytes weights are, and how long until two samplers have them and were checked for parity.
- ``recovery``: ``benchmarks.cluster_faults --what ranks``.
- ``asynchronous``: ``benchmarks.asynchronous``.
"""

import argparse
import asyncio
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks.asynchronous import Rows
from benchmarks.cluster_faults.runs import SUMS
from benchmarks.figures import rounded
from benchmarks.harness import ROOT
from benchmarks.machine import described, load
from benchmarks.served import FETTLE, SERVED, Service
from fettle.broker import Broker
from fettle.chat import Template, load_tokenizer
from fettle.cli.engines import backend_of
from fettle.client import HTTPEngine
from fettle.config import (
    ActorSamplers,
    AdamW,
    CausalLM,
    LocalEngine,
    LoRA,
    PolicySpec,
    RayEngine,
    RLRun,
    TinyModel,
)
from fettle.engine import Engine, Policy
from fettle.engine.local import make_tiny_model
from fettle.environments import suite
from fettle.tracking import RunFolder
from fettle.training import Session, rl
from fettle.types import Datum, datum

SIDES: Mapping[str, LocalEngine | RayEngine | None] = {
    "local": LocalEngine(threads=1),
    "HTTP": None,
    "Ray, 1 rank": RayEngine(workers=1, threads=1),
    "Ray, 2 ranks": RayEngine(workers=2, threads=1),
    "Ray, 2 ranks, layers parted": RayEngine(workers=2, sharded=True, threads=1),
}
OF_THE_MACHINE = ("time/", "speed/", "engine/")


@asynccontextmanager
async def engine_at(side: str, model: str, folder: Path) -> AsyncIterator[tuple[Engine, str]]:
    """The engine of a side, and what the model is called there."""
    settings = SIDES[side]
    if settings is not None:
        with backend_of(settings, folder / "checkpoints") as backend:
            broker = Broker(backend)
            try:
                yield broker, model
            finally:
                broker.close()
        return
    with Service(model, folder / "service", threads=1) as service:
        remote = HTTPEngine(service.url, service.tenant("all").key, checkpoints=folder / "checkpoints")
        try:
            yield remote, SERVED
        finally:
            await remote.close()


def batch(length: int, count: int) -> list[Datum]:
    """Sequences to learn."""
    random = np.random.default_rng(0)
    return [datum(random.integers(4, 60, size=length).tolist(), [0] + [1] * (length - 1)) for _ in range(count)]


async def _trained(side: str, model: str, folder: Path) -> tuple[list[Mapping[str, float]], np.ndarray]:
    async with engine_at(side, model, folder) as (engine, named):
        run = RLRun.model_validate(
            {
                "preset": "grpo",
                "policy": {"model": named, "lora": {"rank": 4}},
                "environments": [SUMS],
                "steps": 4,
                "groups_per_step": 4,
                "group_size": 4,
                "sampling": {"max_tokens": 12},
                "optimizer": {"learning_rate": 1e-3, "eps": 1e-5},
                "evaluation": {"every": 4, "tasks": 4},
                "checkpoints": {"every": 4},
            }
        )
        rows, place = Rows(), RunFolder.at(folder)
        session = Session(place, rows, checkpoints=run.checkpoints, steps=run.steps, stop=asyncio.Event())
        template = Template(load_tokenizer(model))
        ended = await rl.train(run, engine=engine, suites=[suite(SUMS)], template=template, session=session)
        sampler = await engine.sampler(ended.checkpoint)
        said = [await sampler.logprobs(each.tokens.tolist()) for each in batch(24, 4)]
    return rows.kept, np.array([logprob for each in said for logprob in each[1:]], dtype=np.float64)


async def equality(model: str, folder: Path) -> dict[str, Any]:
    """The same run on every engine."""
    found: dict[str, Any] = {}
    first: tuple[list[Mapping[str, float]], np.ndarray] | None = None
    for number, side in enumerate(SIDES):
        rows, said = await _trained(side, model, folder / f"equality-{number}")
        first = first or (rows, said)
        apart = [
            abs(row[name] - other[name])
            for row, other in zip(rows, first[0], strict=True)
            for name in row.keys() & other.keys()
            if not name.startswith(OF_THE_MACHINE)
        ]
        largest = float(np.abs(said - first[1]).max())
        found[side] = {
            "largest_difference_of_metrics": max(apart),
            "largest_difference_of_final_logprobs": largest,
            "same_bits": max(apart) == largest == 0.0,
            "seconds_per_step": statistics.median(row["time/step"] for row in rows[1:]),
        }
    return found


async def _timed(work: Callable[[], Awaitable[object]], times: int) -> float:
    """The median, in milliseconds."""
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        await work()
        taken.append(1000 * (time.perf_counter() - started))
    return statistics.median(taken)


async def operations(model: str, folder: Path) -> dict[str, Any]:
    """Operations one at a time, and a step whose operations are sent without waiting."""
    found: dict[str, Any] = {}
    data, adam = batch(16, 2), AdamW()
    for number, side in enumerate(SIDES):
        async with engine_at(side, model, folder / f"operations-{number}") as (engine, named):
            policy = await engine.create_policy(PolicySpec(model=named, lora=LoRA(rank=4)))

            async def step(policy: Policy = policy) -> None:
                await asyncio.gather(policy.forward_backward(data, CausalLM()), policy.optim_step(adam))

            await _timed(step, 5)
            found[side] = {
                "forward_ms": await _timed(partial(policy.forward, data, CausalLM()), 50),
                "step_ms": await _timed(step, 50),
            }
    for each in found.values():
        each["beyond_local_ms"] = {
            name: each[f"{name}_ms"] - found["local"][f"{name}_ms"] for name in ("forward", "step")
        }
    return found


def first_step(model: str, folder: Path) -> dict[str, float]:
    """``fettle train``, as a user starts it."""
    found: dict[str, float] = {}
    recipe = folder / "first.yaml"
    recipe.write_text(
        f"type: rl\npreset: grpo\nname: first\npolicy: {{model: {model}}}\n"
        "environments: [{type: arithmetic, digits: 1, heldout: 4, system: null}]\nsteps: 1\n"
        "groups_per_step: 2\ngroup_size: 2\nsampling: {max_tokens: 8}\nevaluation: {every: 1, tasks: 1}\n"
    )
    for side, settings in SIDES.items():
        if settings is None:
            continue
        runs = folder / f"first-{len(found)}"
        told = [f"engine.{name}={json.dumps(value)}" for name, value in settings.model_dump(exclude_unset=True).items()]
        command = [sys.executable, *FETTLE, "train", str(recipe), "--engine", settings.type, "--runs", str(runs), *told]
        started = time.perf_counter()
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            while not any("policy/lag" in path.read_text() for path in runs.glob("*/metrics.jsonl")):
                if process.poll() not in (None, 0):
                    raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
                time.sleep(0.05)
            found[side] = time.perf_counter() - started
    return found


def larger(folder: Path) -> str:
    """A model of ten million numbers."""
    settings = TinyModel(hidden=384, layers=6, heads=6, context=128)
    return make_tiny_model(settings, folder, texts=["one two three"] * 9)


async def saving(_: str, folder: Path) -> dict[str, Any]:
    """A model that is trained whole, with moments."""
    model = larger(folder / "saved")
    found: dict[str, Any] = {}
    data = batch(32, 2)
    for number, (side, asked) in enumerate(SIDES.items()):
        if asked is None:
            continue
        async with engine_at(side, model, folder / f"saving-{number}") as (engine, named):
            policy = await engine.create_policy(PolicySpec(model=named))
            await policy.forward_backward(data, CausalLM())
            await policy.optim_step(AdamW())
            usual = await _timed(partial(policy.forward, data, CausalLM()), 5)
            waited, whole, nbytes = [], [], 0
            for turn in range(3):
                started = time.perf_counter()
                save = asyncio.ensure_future(policy.save(f"c{turn}"))
                await asyncio.sleep(0)
                await policy.forward(data, CausalLM())
                waited.append(1000 * (time.perf_counter() - started) - usual)
                saved = await save
                whole.append(1000 * (time.perf_counter() - started))
                nbytes = _size(saved.path)
            found[side] = {
                "step_waits_ms": statistics.median(waited),
                "whole_after_ms": statistics.median(whole),
                "bytes": nbytes,
            }
    return found


def _size(folder: str) -> int:
    return sum(path.stat().st_size for path in Path(folder).iterdir())


def sync(_small: str, folder: Path) -> dict[str, Any]:
    """To two samplers that are actors."""
    model = larger(folder / "sent")
    found: dict[str, Any] = {}
    ways: tuple[Literal["objects", "files"], ...] = ("objects", "files")
    for transfer in ways:
        for kind, lora in (("adapter", LoRA(rank=4)), ("whole", None)):
            samplers = ActorSamplers(count=2, threads=1, transfer=transfer)
            settings = RayEngine(workers=1, samplers=samplers, threads=1)
            with backend_of(settings, folder / f"sync-{transfer}-{kind}") as backend:
                backend.create_policy("p", PolicySpec(model=model, lora=lora))
                taken = []
                for _ in range(4):
                    backend.forward_backward("p", batch(16, 2), CausalLM())
                    backend.optim_step("p", AdamW())
                    started = time.perf_counter()
                    name, _version = backend.pin("p")
                    taken.append(time.perf_counter() - started)
                    backend.unpin(name)
                told = backend.statistics()
            found[f"{kind}, by {transfer}"] = {
                "bytes": told["sync/bytes"],
                "transfer_seconds": told["sync/seconds"],
                "until_checked_seconds": statistics.median(taken[1:]),
            }
    return found


def recovery(_: str, folder: Path) -> Any:
    """Ranks that are killed."""
    return _other("benchmarks.cluster_faults", "--what", "ranks", "--kills", "5")["ranks"]


def asynchronous(_: str, folder: Path) -> Any:
    """Environments that answer after two seconds."""
    return _other("benchmarks.asynchronous", "--steps", "12", "--seconds", "2")["sides"]


def _other(module: str, *arguments: str) -> Any:
    command = [sys.executable, "-m", module, *arguments]
    return json.loads(subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout)


ROWS = (equality, operations, first_step, saving, sync, recovery, asynchronous)


def main() -> None:
    """Measure, and print what was found."""
    names = [row.__name__ for row in ROWS]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cluster", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", action="append", choices=names, help="all, where nothing is said")
    parser.add_argument("--json", action="store_true", help="one line of JSON, and not for reading")
    asked = parser.parse_args()
    logging.getLogger("fettle").setLevel(logging.ERROR)
    os.environ["RAY_AUTH_MODE"] = "disabled"
    found: dict[str, Any] = {"load_before": load(), "machine": described()}
    with tempfile.TemporaryDirectory(prefix="cluster-", ignore_cleanup_errors=True) as scratch:
        texts = [message.content for index in range(40) for message in suite(SUMS).training_task(index).prompt]
        model = make_tiny_model(TinyModel(hidden=64, layers=2, heads=2), Path(scratch) / "model", texts=texts)
        for row in ROWS:
            if row.__name__ in (asked.only or names):
                told: Any = row(model, Path(scratch))
                found[row.__name__] = asyncio.run(told) if asyncio.iscoroutine(told) else told
    found["load_after"] = load()
    print(json.dumps(rounded(found), indent=None if asked.json else 1))


if __name__ == "__main__":
    main()
