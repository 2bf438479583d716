"""``fettle serve --backend ray``: a client trains and samples over HTTP, and a kill of the server changes no number."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from benchmarks.cluster_faults.course import ADAM, rows
from fettle.broker import Broker
from fettle.client import HTTPEngine
from fettle.config import CausalLM, LocalEngine, LoRA, PolicySpec, SamplingParams, TinyModel
from fettle.engine import Engine
from fettle.engine.local import LocalBackend, make_tiny_model
from tests.service.served import NAME, Spawned

WORDS = ["one two three four five six seven eight"] * 9
DRAWN = SamplingParams(max_tokens=6, seed=3)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    settings = TinyModel(hidden=32, layers=2, heads=2, context=64)
    return make_tiny_model(settings, tmp_path_factory.mktemp("model") / "tiny", texts=WORDS)


@asynccontextmanager
async def served(folder: Path, model: str) -> AsyncIterator[tuple[Spawned, Engine]]:
    server = Spawned(
        folder / "state", model, "--backend", "ray", "engine.workers=1", within=("env", "RAY_AUTH_MODE=disabled")
    )
    try:
        server.start()
        engine = HTTPEngine(server.url, server.key)
        yield server, engine
        await engine.close()
    finally:
        server.close()


async def learned(policy: Any, steps: range) -> list[Any]:
    """What a few steps come to, and what is drawn after each."""
    found: list[Any] = []
    for step in steps:
        result = await policy.forward_backward(rows(step), CausalLM())
        stepped = await policy.optim_step(ADAM)
        sampler = await policy.sampler()
        drawn = await sampler.sample([5, 6, 7], 2, DRAWN)
        found += [result.loss, stepped.grad_norm, float(stepped.policy_version)]
        found += [number for each in drawn for number in (*map(float, each.tokens), *map(float, each.logprobs))]
    return found


@pytest.mark.timeout(280)
async def test_a_server_on_ray_that_is_killed_goes_on_from_its_journal(model, tmp_path):
    broker = Broker(LocalBackend(LocalEngine(threads=1), checkpoints=tmp_path / "here"))
    expected = await learned(await broker.create_policy(PolicySpec(model=model, lora=LoRA(rank=4))), range(3))
    broker.close()
    async with served(tmp_path, model) as (server, engine):
        policy = await engine.create_policy(PolicySpec(model=NAME, lora=LoRA(rank=4)))
        found = await learned(policy, range(2))
        server.kill()
        server.start()
        found += await learned(policy, range(2, 3))
    assert found == pytest.approx(expected, rel=1e-4, abs=2e-6)
