"""A bad network between client and service: everything is done once, and the numbers are those of a good one."""

import asyncio
from collections.abc import Callable
from contextlib import ExitStack

import numpy as np

from fettle.client import FutureGroup, HTTPEngine, ServiceClient
from fettle.config import PPO, AdamW, CausalLM, LoRA, PolicySpec, SamplingParams
from fettle.types import datum
from tests.service.served import serving

from .faulty import FAULTS, faulty_network

SPEC = PolicySpec(model="tiny", lora=LoRA(rank=4))
BATCH = {"input_ids": np.tile(np.arange(8, 16), (2, 1)), "attention_mask": np.ones((2, 8), int)}


async def loop(engine: HTTPEngine, *, disturbed: Callable[[], object] | None = None) -> list[object]:
    """Pipelined steps on what was drawn, with a disturbance in the third; all numbers that come of them."""
    policy = await engine.create_policy(SPEC)
    told: list[object] = []
    for step in range(4):
        sampler = await policy.sampler()
        params = SamplingParams(max_tokens=6, seed=step)
        drawn = await asyncio.gather(*(sampler.sample([5, 9 + row], 2, params) for row in range(3)))
        data = [
            datum(
                [5, 9, *each.tokens], [0, 0] + [1] * 6, sampling_logprobs=[0, 0, *each.logprobs], advantages=[1.0] * 8
            )
            for group in drawn
            for each in group
            if len(each.tokens) == 6
        ]
        calls = [policy.forward_backward([one], PPO()) for one in data]
        if step == 2 and disturbed is not None:
            disturbance = asyncio.ensure_future(asyncio.to_thread(disturbed))
        *losses, stepped = await asyncio.gather(*calls, policy.optim_step(AdamW(learning_rate=0.01)))
        told += [[loss.loss for loss in losses], stepped.grad_norm, stepped.policy_version]
    told.append((await policy.save("end")).digest)
    told.append((await policy.forward([datum(list(range(4, 30)), [0] + [1] * 25)], CausalLM())).loss)
    await policy.close()
    if disturbed is not None:
        await disturbance
    return told


async def test_a_service_that_is_started_again_in_the_middle_changes_no_number(served, tmp_path, tiny_model):
    good = HTTPEngine(served.url, served.key)
    expected = await loop(good)
    await good.close()
    with ExitStack() as first, ExitStack() as second:
        service = first.enter_context(serving(tmp_path / "state", tiny_model))
        async with faulty_network(service.url, share=0.0, seed=0) as network:

            def restarted() -> None:
                first.close()
                network.service = second.enter_context(serving(tmp_path / "state", tiny_model)).url

            engine = HTTPEngine(network.url, service.key)
            assert await loop(engine, disturbed=restarted) == expected
            await engine.close()


async def test_a_loop_over_a_bad_network_has_the_numbers_of_one_over_a_good_one(served):
    good = HTTPEngine(served.url, served.key)
    expected = await loop(good)
    await good.close()
    async with faulty_network(served.url, share=0.4, seed=0) as network:
        bad = HTTPEngine(network.url, served.key)
        assert await loop(bad) == expected
        await bad.close()
    assert set(FAULTS) <= set(network.met)


async def test_a_training_call_that_is_sent_again_applies_its_gradients_once(served):
    async with ServiceClient(served.url, served.key) as good, faulty_network(served.url, share=0.5, seed=7) as network:
        norms = []
        for url in (served.url, network.url):
            async with ServiceClient(url, served.key) as client:
                training = client.get_training_client(await client.create_run("tiny", lora_r=4))
                group = FutureGroup()
                for _ in range(5):
                    group.add(await training.forward_backward_async(BATCH, "causal_lm"))
                    group.add(await training.optim_step_async(0.01))
                results = await group.wait_all()
                norms.append([result["grad_norm"] for result in results])
                assert [result["step"] for result in results[1::2]] == [1, 2, 3, 4, 5]
                told = await good.get_training_client(training.run_id, take_over=False).status()
                assert told["version"] == 5
        assert norms[0] == norms[1]
