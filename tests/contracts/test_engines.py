"""What every engine must satisfy. Whoever adds one adds a row to ``ENGINES``."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from fettle.broker import Broker
from fettle.calls import Create, Forward, ForwardBackward, OptimStep
from fettle.client import HTTPEngine
from fettle.config import PPO, AdamW, CausalLM, Linear, LocalEngine, LoRA, PolicySpec, SamplingParams, TinyModel
from fettle.engine import Engine
from fettle.engine.local.backend import LocalBackend
from fettle.engine.local.tiny import make_tiny_model
from fettle.errors import FettleError, LossInputError, NotFoundError
from fettle.training.schedule import learning_rate
from fettle.types import Datum, datum
from tests.cluster.ranks import BESIDE_OTHERS, cleared, ranks, ray_here
from tests.service.served import Served, serving

PROMPT = [5, 9, 41]
DRAWING = SamplingParams(max_tokens=6, seed=3)
ADAM = AdamW(learning_rate=0.01)


def local(folder: Path) -> Broker:
    return Broker(LocalBackend(LocalEngine(threads=1), checkpoints=folder))


def local_beside(folder: Path) -> Broker:
    return Broker(LocalBackend(LocalEngine(threads=1, sampling_threads=1), checkpoints=folder))


def http(served: Served) -> HTTPEngine:
    return HTTPEngine(served.url, served.key)


LOCAL: dict[str, Callable[[Path], Broker]] = {"local": local, "local, sampling beside": local_beside}
BROKERS = LOCAL if BESIDE_OTHERS else [*LOCAL, "ray"]
ENGINES = [*BROKERS, "http"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    settings = TinyModel(hidden=32, layers=2, heads=2, context=64)
    return make_tiny_model(settings, tmp_path_factory.mktemp("model") / "tiny", texts=["one two three"] * 9)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, model: str) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("service"), model) as service:
        yield service


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    with ray_here(), ranks(2, tmp_path_factory.mktemp("ranks")) as backend:
        yield backend


@pytest.fixture(params=BROKERS)
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    made = a_broker(request, tmp_path)
    yield made
    made.close()


def a_broker(request: pytest.FixtureRequest, tmp_path: Path) -> Broker:
    if request.param == "ray":
        return Broker(cleared(request.getfixturevalue("two_ranks")))
    return LOCAL[request.param](tmp_path / "checkpoints")


@pytest_asyncio.fixture(params=ENGINES)
async def engine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Engine]:
    if request.param == "http":
        remote = http(request.getfixturevalue("served"))
        yield remote
        await remote.close()
    else:
        made = a_broker(request, tmp_path)
        yield made
        made.close()


@pytest.fixture(params=[None, LoRA(rank=4)], ids=["full", "lora"])
def local_spec(request: pytest.FixtureRequest, model: str) -> PolicySpec:
    return PolicySpec(model=model, lora=request.param)


@pytest.fixture
def spec(engine: Engine, local_spec: PolicySpec) -> PolicySpec:
    """With the model as the engine calls it."""
    return local_spec.model_copy(update={"model": "tiny"}) if isinstance(engine, HTTPEngine) else local_spec


async def episodes(sampler, step: int) -> list[Datum]:
    """Draw four completions and pretend to have rewards."""
    drawn = await asyncio.gather(
        *(sampler.sample(PROMPT, 2, DRAWING.model_copy(update={"seed": 10 * step + i})) for i in range(2))
    )
    return [
        datum(
            [*PROMPT, *completion.tokens],
            [0] * len(PROMPT) + [1] * len(completion.tokens),
            sampling_logprobs=[0] * len(PROMPT) + completion.logprobs,
            advantages=[0] * len(PROMPT) + [(-1) ** i] * len(completion.tokens),
        )
        for i, completion in enumerate(completion for group in drawn for completion in group)
    ]


async def loop(engine, spec: PolicySpec, *, refused_at: int | None = None) -> tuple[list[float], list[np.ndarray]]:
    """Three pipelined steps; returns the losses and, for the final weights, log-probabilities of a fixed sequence."""
    policy = await engine.create_policy(spec)
    losses: list[float] = []
    for step in range(3):
        data = await episodes(await policy.sampler(), step)
        calls = [asyncio.ensure_future(policy.forward_backward(data, PPO()))]
        if step == refused_at:
            bad = datum([1, 10**6], [0, 1], sampling_logprobs=[0, -1], advantages=[0, 1])
            refused = asyncio.ensure_future(policy.forward_backward([bad], PPO()))
        stepped = asyncio.ensure_future(policy.optim_step(ADAM))
        if step == refused_at:
            with pytest.raises(LossInputError, match="token id 1000000"):
                await refused
        losses += [result.loss for result in await asyncio.gather(*calls)]
        assert (await stepped).policy_version == step + 1
    fixed = datum(list(range(4, 30)), [0] + [1] * 25)
    final = (await policy.forward([fixed], CausalLM())).logprobs
    await policy.close()
    return losses, final


async def test_the_same_loop_gives_the_same_bits_run_after_run(engine, spec):
    first, second = await loop(engine, spec), await loop(engine, spec)
    assert first[0] == second[0]
    assert all(np.array_equal(a, b) for a, b in zip(first[1], second[1], strict=True))


async def test_the_same_loop_gives_the_same_bits_in_process_and_over_http(served, local_spec, tmp_path):
    here, there = local(tmp_path / "checkpoints"), http(served)
    losses, final = await loop(here, local_spec)
    remote_losses, remote_final = await loop(there, local_spec.model_copy(update={"model": "tiny"}))
    here.close()
    await there.close()
    assert remote_losses == losses
    assert all(np.array_equal(a, b) for a, b in zip(remote_final, final, strict=True))


async def test_a_refused_call_in_the_middle_changes_nothing_else(engine, spec):
    plain, disturbed = await loop(engine, spec), await loop(engine, spec, refused_at=1)
    assert plain[0] == disturbed[0]
    assert all(np.array_equal(a, b) for a, b in zip(plain[1], disturbed[1], strict=True))


async def test_pipelined_calls_equal_calls_made_one_by_one(engine, spec):
    data = [datum(list(range(4, 12)), [0] + [1] * 7)]
    found = []
    for pipelined in (True, False):
        policy = await engine.create_policy(spec)
        if pipelined:
            calls = [policy.forward_backward(data, CausalLM()), policy.optim_step(ADAM)] * 1
            calls += [
                policy.forward_backward(data, CausalLM()),
                policy.optim_step(ADAM),
                policy.forward(data, CausalLM()),
            ]
            result = (await asyncio.gather(*calls))[-1]
        else:
            for _ in range(2):
                await policy.forward_backward(data, CausalLM())
                await policy.optim_step(ADAM)
            result = await policy.forward(data, CausalLM())
        found.append(result)
    assert found[0].loss == found[1].loss
    assert np.array_equal(found[0].logprobs[0], found[1].logprobs[0])


async def test_an_operation_sent_twice_takes_effect_once(broker, local_spec):
    """As a client does that never saw the answer: same number, same contents."""
    data = [datum(list(range(4, 12)), [0] + [1] * 7)]
    weights = []
    for times in (1, 2):
        name = f"sent {times} times".replace(" ", "-")
        broker.open(name, Create(local_spec))
        calls = [ForwardBackward(data, CausalLM()), OptimStep(ADAM)]
        sent = [broker.submit(name, 0, seq, call) for seq, call in enumerate(calls) for _ in range(times)]
        answers = await asyncio.gather(*(promise.result() for promise in sent))
        assert answers[-1].policy_version == 1
        weights.append((await broker.submit(name, 0, 2, Forward(data, CausalLM())).result()).logprobs[0])
    assert np.array_equal(*weights)


async def test_sampled_log_probabilities_are_those_the_trainer_finds(engine, spec):
    policy = await engine.create_policy(spec)
    await policy.forward_backward([datum(list(range(4, 30)), [0] + [1] * 25)], CausalLM())
    await policy.optim_step(AdamW(learning_rate=0.05))
    data = await episodes(await policy.sampler(), 0)
    found = (await policy.forward(data, PPO())).logprobs
    for one, logprobs in zip(data, found, strict=True):
        np.testing.assert_allclose(logprobs, one.streams["sampling_logprobs"], atol=1e-4)


async def test_a_sampler_keeps_its_weights_while_the_policy_moves_on(engine, spec):
    policy = await engine.create_policy(spec)
    early = await policy.sampler()
    before = await early.sample(PROMPT, 3, DRAWING)
    await policy.forward_backward([datum(list(range(4, 30)), [0] + [1] * 25)], CausalLM())
    await policy.optim_step(AdamW(learning_rate=0.1))
    after = await early.sample(PROMPT, 3, DRAWING)
    now = await (await policy.sampler()).sample(PROMPT, 3, DRAWING)
    assert [c.tokens for c in before] == [c.tokens for c in after]
    assert [c.logprobs for c in before] == [c.logprobs for c in after]
    assert {c.policy_version for c in after} == {0}
    assert {c.policy_version for c in now} == {1}
    assert [c.logprobs for c in now] != [c.logprobs for c in after]


async def test_a_policy_saved_and_loaded_goes_on_to_the_same_bits(engine, spec):
    data = [datum(list(range(4, 12)), [0] + [1] * 7)]
    policy = await engine.create_policy(spec)
    await policy.forward_backward(data, CausalLM())
    await policy.optim_step(ADAM)
    checkpoint = await policy.save("one")
    loaded = await engine.load_policy(checkpoint.path, optimizer=True)
    found = []
    for each in (policy, loaded):
        await each.forward_backward(data, CausalLM())
        assert (await each.optim_step(ADAM)).policy_version == 2
        found.append((await each.forward(data, CausalLM())).logprobs[0])
    assert np.array_equal(*found)


async def test_a_saved_checkpoint_can_be_sampled_by_name(engine, spec):
    policy = await engine.create_policy(spec)
    await policy.forward_backward([datum(list(range(4, 30)), [0] + [1] * 25)], CausalLM())
    await policy.optim_step(AdamW(learning_rate=0.1))
    live = await (await policy.sampler()).sample(PROMPT, 3, DRAWING)
    name = "sampled-lora" if spec.lora else "sampled-full"  # engines that several tests share keep what they have read
    checkpoint = await policy.save(name, optimizer=False)
    saved = await (await engine.sampler(checkpoint.path)).sample(PROMPT, 3, DRAWING)
    assert [c.tokens for c in saved] == [c.tokens for c in live]
    assert {c.policy_version for c in saved} == {1}


async def test_a_step_at_rate_zero_as_a_schedule_ends_on_moves_nothing(engine, spec):
    data = [datum(list(range(4, 12)), [0] + [1] * 7)]
    policy = await engine.create_policy(spec)
    before = (await policy.forward_backward(data, CausalLM())).logprobs[0]
    rate = learning_rate(Linear(), ADAM.learning_rate, step=2, steps=3)
    assert (await policy.optim_step(ADAM.model_copy(update={"learning_rate": rate}))).policy_version == 1
    assert np.array_equal((await policy.forward(data, CausalLM())).logprobs[0], before)


async def test_two_policies_do_not_touch_each_other(engine, spec):
    alone = await loop(engine, spec)
    together = await asyncio.gather(loop(engine, spec), loop(engine, spec))
    for losses, final in together:
        np.testing.assert_allclose(losses, alone[0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(final[0], alone[1][0], atol=1e-4)


async def test_a_closed_policy_is_gone(engine, spec):
    policy = await engine.create_policy(spec)
    sampler = await policy.sampler()
    await policy.close()
    with pytest.raises(NotFoundError, match="was closed, or never made"):
        await policy.optim_step(ADAM)
    with pytest.raises(NotFoundError, match=r"its policy was closed|it was deleted, has expired"):
        await sampler.sample(PROMPT, 1, DRAWING)


async def test_a_prompt_beyond_the_context_is_refused_alone(engine, spec):
    sampler = await (await engine.create_policy(spec)).sampler()
    answers = await asyncio.gather(
        sampler.sample(PROMPT, 1, DRAWING), sampler.sample([5] * 64, 1, DRAWING), return_exceptions=True
    )
    assert len(answers[0]) == 1
    assert isinstance(answers[1], FettleError)
    assert "64" in str(answers[1])
