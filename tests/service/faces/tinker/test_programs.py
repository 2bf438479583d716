"""Programs written for the public SDK, as they are: the examples, and the loops that recipes are made of."""

import asyncio
import runpy
from pathlib import Path

import numpy as np
import pytest
import tinker
import torch
from tinker import types

from tests.service.faces.tinker.programs import adam, batch, datum, prompt, rest_of, sdk_of, sequences

EXAMPLES = Path(__file__).parents[4] / "examples"


@pytest.fixture
def printed(shared, monkeypatch, capsys):
    """The lines that an example prints."""
    monkeypatch.setenv("TINKER_BASE_URL", shared.url)
    monkeypatch.setenv("TINKER_API_KEY", shared.key)

    def run(name):
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out.splitlines()

    return run


def test_72_supervised_example_learns_its_capitals(printed):
    lines = printed("tinker_sft.py")
    losses = [float(line.split()[3]) for line in lines if line.startswith("step")]
    assert losses == sorted(losses, reverse=True)
    # The frozen head of a random model is never sure of anything, but it is right.
    assert {"France: Paris.", "Italy: Rome.", "Japan: Tokyo.", "Peru: Lima.", "Kenya: Nairobi."} < set(lines)
    assert lines[-1].startswith("saved as tinker://")


def test_72_reinforcement_example_earns_more(printed):
    rewards = [float(line.split()[3]) for line in printed("tinker_rl.py") if line.startswith("step")]
    assert np.mean(rewards[-6:]) > np.mean(rewards[:6]) + 0.02


async def test_72_loops_that_await(shared):
    with sdk_of(shared) as service:
        training = await service.create_lora_training_client("tiny", rank=4)
        losses = []
        for _ in range(3):
            done, stepped = training.forward_backward(batch(), "cross_entropy"), training.optim_step(adam())
            losses.append((await done).metrics["loss:sum"])
            await stepped
        assert losses[2] < losses[0]
        sampler = await training.save_weights_and_get_sampling_client()
        params = types.SamplingParams(max_tokens=4)
        drawn = await asyncio.gather(*[sampler.sample(prompt(65 + i), 2, params) for i in range(6)])
        assert [len(one.sequences) for one in drawn] == [2] * 6


def test_72_preferences_are_learnt_against_a_reference(sdk):
    """Direct preference optimisation, as recipes write it: a reference sampler and a loss of the client's own."""
    training = sdk.create_lora_training_client("tiny", rank=4, seed=3).result()
    reference = training.save_weights_and_get_sampling_client().result()
    pairs = sequences(2)
    before = [torch.tensor(reference.compute_logprobs(prompt(*tokens)).result()[1:]) for tokens in pairs]
    margins = []

    def dpo(data, read):
        chosen, rejected = (own.sum() - theirs.sum() for own, theirs in zip(read, before, strict=True))
        margins.append(float(chosen - rejected))
        return -torch.nn.functional.logsigmoid(0.1 * (chosen - rejected)), {"margin": margins[-1]}

    for _ in range(4):
        training.forward_backward_custom([datum(tokens) for tokens in pairs], dpo).result()
        training.optim_step(adam()).result()
    assert abs(margins[0]) < 1e-3
    assert margins[-1] > 1


def test_72_a_program_goes_on_from_what_another_saved(sdk, shared):
    training = sdk.create_lora_training_client("tiny", rank=4).result()
    losses = []
    for _ in range(2):
        losses.append(training.forward_backward(batch(), "cross_entropy").result().metrics["loss:sum"])
        training.optim_step(adam())
    path = training.save_state("0002", user_metadata={"renderer_name": "plain"}).result().path
    with tinker.ServiceClient(base_url=shared.url, api_key=shared.key) as later:
        rest = rest_of(shared)
        assert rest.get_weights_info_by_tinker_path(path).result().base_model == "tiny"
        resumed = later.create_training_client_from_state_with_optimizer(path).result()
        assert resumed.forward_backward(batch(), "cross_entropy").result().metrics["loss:sum"] < losses[1]
        resumed.save_weights_for_sampler("0002").result()
