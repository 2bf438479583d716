"""The broker over a real backend: which calls share a batch, and what one thread does while the other is at work."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from fettle.broker import Broker
from fettle.config import AdamW, CausalLM, LocalEngine, LoRA, PolicySpec, SamplingParams
from fettle.engine.base import SampleRequest
from fettle.engine.local import LocalBackend
from fettle.types import Completion, Datum, datum

ADAM = AdamW(learning_rate=0.05)
DRAWING = SamplingParams(max_tokens=8, seed=1)
PROMPT = [5, 6, 7]
SPEC = PolicySpec(model="", lora=LoRA(rank=4))


class Watched:
    """Satisfies ``Backend``: a real one, whose calls of ``sample`` are noted."""

    def __init__(self, backend: LocalBackend) -> None:
        self.inner = backend
        self.batches: list[list[str]] = []
        self.threads: list[tuple[int, int]] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    def sample(self, weights: Sequence[str], requests: Sequence[SampleRequest]) -> list[list[Completion]]:
        drawn = self.inner.sample(weights, requests)
        self.batches.append(list(weights))
        self.threads.append((threading.get_ident(), torch.get_num_threads()))
        return drawn


@pytest.fixture(params=[None, LoRA(rank=4)], ids=["full", "lora"])
def spec(request: pytest.FixtureRequest, model: str) -> PolicySpec:
    return PolicySpec(model=model, lora=request.param)


@pytest.fixture
async def beside(tmp_path: Path) -> AsyncIterator[Broker]:
    """A broker whose backend samples on a thread of its own."""
    broker = Broker(Watched(LocalBackend(LocalEngine(threads=2, sampling_threads=1), checkpoints=tmp_path)))
    yield broker
    broker.close()


def data(seed: int, n: int = 2) -> list[Datum]:
    tokens = np.random.default_rng(seed).integers(5, 200, (n, 9))
    return [datum(row.tolist(), [0] + [1] * 8) for row in tokens]


async def test_completions_are_drawn_while_a_training_call_is_under_way(beside, spec):
    """The training call waits, in the middle of its forward pass, until completions have come."""
    policy = await beside.create_policy(spec)
    sampler = await policy.sampler()
    before = await sampler.sample(PROMPT, 2, DRAWING)
    drawn = threading.Event()
    trunk = beside._backend.inner._policies[policy.name].model.module.base_model

    def wait(*_: object) -> None:
        assert drawn.wait(60)

    hook = trunk.register_forward_pre_hook(wait)
    training = asyncio.ensure_future(policy.forward_backward(data(0), CausalLM()))
    meanwhile = await sampler.sample(PROMPT, 2, DRAWING)
    assert not training.done()
    drawn.set()
    assert (await training).num_tokens == 16
    hook.remove()
    assert [c.tokens for c in meanwhile] == [c.tokens for c in before]


async def test_training_does_not_reach_what_is_being_drawn_from(beside, spec):
    policy = await beside.create_policy(spec)
    sampler = await policy.sampler()
    before = await sampler.sample(PROMPT, 4, DRAWING)
    for step in range(2):
        _, _, drawn = await asyncio.gather(
            policy.forward_backward(data(step), CausalLM()), policy.optim_step(ADAM), sampler.sample(PROMPT, 4, DRAWING)
        )
        assert [(c.tokens, c.logprobs) for c in drawn] == [(c.tokens, c.logprobs) for c in before]
    after = await (await policy.sampler()).sample(PROMPT, 4, DRAWING)
    assert [c.logprobs for c in after] != [c.logprobs for c in before]


async def test_each_thread_has_its_own_number_of_threads_for_arithmetic(beside, spec):
    policy = await beside.create_policy(spec)
    sampler = await policy.sampler()
    await sampler.sample(PROMPT, 1, DRAWING)
    await policy.forward_backward(data(0), CausalLM())
    ((drawer, drawing),) = beside._backend.threads
    assert drawing == 1
    assert await beside.run(lambda: (threading.get_ident() != drawer, torch.get_num_threads())) == (True, 2)


async def test_samplers_of_several_policies_share_a_batch_and_those_of_one_do_not(tmp_path, model):
    """Samplers of one policy meet in a turn or do not, as fast as the threads are: no bits may hang on it."""
    backend = Watched(LocalBackend(LocalEngine(threads=1), checkpoints=tmp_path))
    broker = Broker(backend)
    spec = SPEC.model_copy(update={"model": model})
    one, other = await broker.create_policy(spec), await broker.create_policy(spec)
    samplers = [await one.sampler(), await one.sampler(), await other.sampler()]
    together = await asyncio.gather(*(sampler.sample(PROMPT, 2, DRAWING) for sampler in samplers * 2))
    names = [sampler._weights for sampler in samplers]
    assert [sorted(set(batch)) for batch in backend.batches] == [sorted([names[0], names[2]]), [names[1]]]
    for drawn in together:
        assert [c.tokens for c in drawn] == [c.tokens for c in together[0]]
    broker.close()


async def test_calls_of_several_adapters_that_are_issued_together_give_each_the_bits_it_gets_alone(tmp_path, model):
    spec, found = SPEC.model_copy(update={"model": model}), []
    for together in (True, False):
        broker = Broker(LocalBackend(LocalEngine(threads=1), checkpoints=tmp_path))
        policies = [await broker.create_policy(spec) for _ in range(4)]
        calls = [policy.forward_backward(data(seed), CausalLM()) for seed, policy in enumerate(policies)]
        results = await asyncio.gather(*calls) if together else [await call for call in calls]
        norms = [(await policy.optim_step(ADAM)).grad_norm for policy in policies]
        found.append(([result.loss for result in results], norms))
        broker.close()
    assert found[0] == found[1]
