"""Ranks that are killed: a fixed course of operations, with a kill at one of them, against the same without.

    python -m benchmarks.cluster_faults --kills 50 --json faults.json

Each kill is a SIGKILL to a rank, before an operation or somewhere in the midst of it. What every operation comes to
must be the same, to the bit, as where nobody died.
"""

import argparse
import json
import os
import random
import signal
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fettle.cluster import ClusterBackend
from fettle.config import AdamW, CausalLM, LoRA, PolicySpec, RayEngine, SamplingParams, TinyModel
from fettle.engine import SampleRequest
from fettle.engine.local import make_tiny_model
from fettle.types import Datum, datum

ADAM = AdamW(learning_rate=0.01)
LENGTHS = (5, 9, 14, 30, 22, 7)


def rows(seed: int) -> list[Datum]:
    """Sequences of several lengths."""
    random = np.random.default_rng(seed)
    return [datum(random.integers(4, 60, size=n).tolist(), [0] + [1] * (n - 1)) for n in LENGTHS]


def course(backend: ClusterBackend, policy: str, spec: PolicySpec) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Operations by name, each of which gives something to compare. Weights are pinned, sampled, saved and undone."""
    pins: list[str] = []
    drawing = SamplingParams(max_tokens=6, seed=3)

    def pinned() -> int:
        name, version = backend.pin(policy)
        pins.append(name)
        return version

    def drawn() -> list[Any]:
        requests = [SampleRequest([5, 6, 7 + i], 2, drawing) for i in range(3)]
        found = backend.sample([pins[-1]] * 3, requests)
        return [(list(each.tokens), list(each.logprobs)) for group in found for each in group]

    def learned(seed: int) -> list[Any]:
        result = backend.forward_backward(policy, rows(seed), CausalLM())
        return [result.loss, result.metrics, [each.tolist() for each in result.logprobs]]

    def stepped(**how: bool) -> list[Any]:
        result = backend.optim_step(policy, ADAM, **how)
        return [result.policy_version, result.grad_norm, result.skipped]

    yield "create", lambda: backend.create_policy(policy, spec)
    for step in range(2):
        yield "forward_backward", lambda step=step: learned(2 * step)  # type: ignore[misc]
        yield "forward_backward", lambda step=step: learned(2 * step + 1)  # type: ignore[misc]
        yield "optim_step", stepped
        yield "pin", pinned
        yield "sample", drawn
    yield "forward_backward", lambda: learned(9)
    yield "optim_step", lambda: stepped(undoable=True)
    yield "undo", lambda: backend.undo(policy).policy_version
    yield "save", lambda: backend.save(policy, policy, optimizer=True).result().policy_version
    yield "sample", drawn
    yield "forward", lambda: [each.tolist() for each in backend.forward(policy, rows(7), CausalLM()).logprobs]
    yield "close", lambda: backend.close_policy(policy)


def followed(backend: ClusterBackend, policy: str, spec: PolicySpec) -> list[Any]:
    """What the course comes to where nobody dies."""
    return [work() for _, work in course(backend, policy, spec)]


def killed(
    backend: ClusterBackend, policy: str, spec: PolicySpec, *, at: int, rank: int, after: float
) -> tuple[list[Any], str]:
    """The same, with a rank killed so many seconds after operation ``at`` begins; and which that was."""
    found, name = [], ""
    for place, (operation, work) in enumerate(course(backend, policy, spec)):
        if place != at:
            found.append(work())
            continue
        pid, name = backend.facts()[rank].pid, operation
        if after:
            threading.Timer(after, os.kill, (pid, signal.SIGKILL)).start()
        else:
            os.kill(pid, signal.SIGKILL)
        found.append(work())
    return found, name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--sharded-base", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        settings = TinyModel(hidden=32, layers=2, heads=2, context=64)
        model = make_tiny_model(settings, Path(folder) / "model", texts=["one two three"] * 9)
        many = {"workers": options.workers, "sharded_base": options.sharded_base}
        engine = RayEngine(**many, threads=1, start_seconds=600)  # fewer ranks would come to other last bits
        started = time.perf_counter()
        backend = ClusterBackend(engine, checkpoints=Path(folder) / "checkpoints")
        report: dict[str, Any] = {**many, "begun_seconds": round(time.perf_counter() - started, 1)}
        try:
            report |= _disturbed(backend, model, options.kills, chance)
        finally:
            backend.close()
    text = json.dumps(report, indent=2)
    print(text)
    if options.json is not None:
        options.json.write_text(text + "\n")


def _disturbed(backend: ClusterBackend, model: str, kills: int, chance: random.Random) -> dict[str, Any]:
    specs = {"adapter": PolicySpec(model=model, lora=LoRA(rank=4)), "whole": PolicySpec(model=model)}
    expected = {kind: followed(backend, f"{kind}-alone", spec) for kind, spec in specs.items()}
    different, at_operations = 0, []
    for number in range(kills):
        kind = chance.choice(list(specs))
        at, rank = chance.randrange(len(expected[kind])), chance.randrange(len(backend.facts()))
        after = chance.choice([0.0, chance.uniform(0.0, 0.05)])
        found, operation = killed(backend, f"{kind}-{number}", specs[kind], at=at, rank=rank, after=after)
        different += repr(found) != repr(expected[kind])
        at_operations.append(operation)
        print(f"{number}: rank {rank} killed at {operation} {at}, {different} differ so far", flush=True)
    return {
        "kills": kills,
        "replaced": backend.replaced,
        "courses_that_differ": different,
        "operations": {name: at_operations.count(name) for name in sorted(set(at_operations))},
        "recovery_seconds": {
            "median": round(statistics.median(backend.recoveries), 2),
            "most": round(max(backend.recoveries), 2),
        },
    }


if __name__ == "__main__":
    main()
