"""The warm checkpoint of the race to a reward: taught two-digit sums, then a sloppy way to do them.

First right answers are shown, then such in which the carry from the ones is mostly dropped and the ones are often off.
What is left is a model that can write sums, is right about half of the time, and has seen what is right. It is made by
Fettle's own supervised fine-tuning, from a seed, and its folder is named for its recipe. Held-out sums are never shown.
"""

import json
import shutil
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any

from benchmarks import models
from benchmarks.harness import Settings
from benchmarks.models import Size
from benchmarks.recipes import carried_out, common
from fettle.config import JSONL, SamplingParams
from fettle.engine.base import SampleRequest
from fettle.engine.local.backend import LocalBackend
from fettle.environments import Suite, suite

SHAPE = Size(128, 4, 4, 2, 32, 384, 512, rope_theta=100.0, initial_std=0.05)
"""The tiny model, begun as small models learn fastest."""
HELDOUT = 200
MAX_TOKENS = 8
CARRY_DROPPED, ONES_OFF = 0.8, 0.35
TAUGHT = {"steps": 350, "batch_size": 128, "rate": 3e-3}
SLOPPY = {"steps": 120, "batch_size": 128, "rate": 1e-3}
TASKS = "tasks.jsonl"


def checkpoint() -> str:
    """The folder of the warm checkpoint, with the file of its tasks in it; made if need be, in about a minute."""
    recipe = {"dropped": CARRY_DROPPED, "off": ONES_OFF, "taught": TAUGHT, "sloppy": SLOPPY, "heldout": HELDOUT}
    start = models.cached("start", asdict(SHAPE), lambda place: models.make(SHAPE, None, place))
    return models.cached("warm", {**recipe, "start": Path(start).name}, lambda place: _make(start, place))


def tasks(folder: str) -> Suite:
    """Two-digit sums; those held out are the same for everybody."""
    return suite(JSONL(**source(folder)))


def source(folder: str) -> dict[str, Any]:
    """The environment as a recipe names it."""
    path = str(Path(folder) / TASKS)
    return {"path": path, "reward": "exact_match", "answer_in": "text", "system": None, "heldout": HELDOUT}


def accuracy(folder: str, *, temperature: float) -> float:
    """The share of held-out sums that a model gets right."""
    from benchmarks.workload import POLICY, engine

    kept = tasks(folder).heldout_tasks()
    with engine(Settings(), folder) as backend:
        replies = _replies(backend, POLICY, [task.prompt[0].content for task in kept], temperature)
    return statistics.fmean(reply == task.data["answer"] for reply, task in zip(replies, kept, strict=True))


def _replies(backend: LocalBackend, policy: str, asked: Sequence[str], temperature: float) -> list[str]:
    written = models.tokenizer(SHAPE.vocabulary, SHAPE.context)
    params = [SamplingParams(max_tokens=MAX_TOKENS, temperature=temperature, seed=seed) for seed in range(len(asked))]
    prompts = [written.encode(models.framed(each), add_special_tokens=False) for each in asked]
    requests = [SampleRequest(prompt, 1, each) for prompt, each in zip(prompts, params, strict=True)]
    weights, _ = backend.pin(policy)
    found = backend.sample([weights] * len(requests), requests)
    backend.unpin(weights)
    return [written.decode(group[0].tokens, skip_special_tokens=True) for group in found]


def _make(start: str, place: Path) -> None:
    sums = [(a, b) for a in range(10, 100) for b in range(10, 100)]
    rows = [{"prompt": f"{a}+{b}=", "answer": str(a + b)} for a, b in sums]
    _write(place / TASKS, rows)
    kept = {task.prompt[0].content for task in tasks(str(place)).heldout_tasks()}
    shown = [(a, b) for a, b in sums if f"{a}+{b}=" not in kept]
    _write(place / "right.jsonl", [{"prompt": f"{a}+{b}=", "completion": str(a + b)} for a, b in shown])
    _write(place / "sloppy.jsonl", list(_sloppy(shown, Random("sloppy"))))
    stages = [
        _stage("taught", start, place / "right.jsonl", TAUGHT),
        _stage("sloppy", "previous", place / "sloppy.jsonl", SLOPPY),
    ]
    ends = carried_out({"type": "pipeline", "name": "warm", "stages": stages}, root=place / "run")
    saved = ends[-1].folder / "checkpoints" / ends[-1].checkpoint
    for name in ("config.json", "generation_config.json", "model.safetensors"):
        shutil.copy(saved / name, place / name)
    models.tokenizer(SHAPE.vocabulary, SHAPE.context).save_pretrained(place)
    shutil.rmtree(place / "run")


def _stage(name: str, model: str, path: Path, lesson: dict[str, Any]) -> dict[str, Any]:
    recipe = common(Settings(), model, steps=lesson["steps"], rate=lesson["rate"])
    return {
        **recipe,
        "type": "sft",
        "name": name,
        "data": {"type": "conversations", "path": str(path), "heldout": 50},
        "batch_size": lesson["batch_size"],
        "max_tokens": 32,
        "schedule": {"type": "linear", "warmup_steps": 20, "final": 0.05},
        "evaluation": {"every": lesson["steps"]},
    }


def _sloppy(sums: Sequence[tuple[int, int]], rng: Random) -> Iterator[dict[str, str]]:
    for a, b in [*sums, *sums]:
        ones, tens = a % 10 + b % 10, a // 10 + b // 10
        if ones >= 10 and rng.random() >= CARRY_DROPPED:
            tens += 1
        if rng.random() < ONES_OFF:
            ones += rng.choice((1, 9))
        yield {"prompt": f"{a}+{b}=", "completion": f"{tens}{ones % 10}"}


def _write(path: Path, rows: Sequence[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
