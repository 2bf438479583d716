"""The documented client: verbs in order, results by name, mistakes with the names that are right."""

import asyncio

import numpy as np
import pytest

from fettle.errors import CheckpointError, ConfigError, NotFoundError

BATCH = {"input_ids": np.tile(np.arange(8, 16), (2, 1)), "attention_mask": np.ones((2, 8), int)}


async def test_a_run_learns_what_it_is_shown(client, model):
    training_client = client.get_training_client(await client.create_run(model, lora_r=None, learning_rate=0.01))
    first = await training_client.forward_backward(BATCH, "causal_lm")
    for _ in range(20):
        await training_client.optim_step()
        last = await training_client.forward_backward(batch_data=BATCH, loss_fn="causal_lm", loss_kwargs={})
    assert (first["step"], last["step"]) == (0, 20)
    assert last["loss"] < first["loss"] / 4
    assert last["metrics"]["nll"] == pytest.approx(last["loss"])
    await training_client.optim_step()
    drawn = await training_client.sample([[8, 9]], max_tokens=3, temperature=0.0, return_logprobs=True)
    assert drawn["token_ids"] == [[10, 11, 12]]
    assert len(drawn["outputs"]) == 1
    assert len(drawn["logprobs"][0]) == 3
    assert drawn["policy_version"] == 21


async def test_verbs_begin_when_called_and_keep_their_order(client, model):
    training_client = client.get_training_client(await client.create_run(model))
    verbs = [
        verb
        for _ in range(3)
        for verb in (training_client.forward_backward(BATCH, "causal_lm"), training_client.optim_step())
    ]
    results = await asyncio.gather(*verbs)
    assert [result["step"] for result in results] == [0, 1, 1, 2, 2, 3]
    losses = [result["loss"] for result in results[0::2]]
    assert losses == sorted(losses, reverse=True)


async def test_a_learning_rate_stays(client, model):
    training_client = client.get_training_client(await client.create_run(model))
    await training_client.forward_backward(BATCH, "causal_lm")
    assert (await training_client.optim_step())["learning_rate"] == 3e-4
    for rate in (0.5, None):
        await training_client.forward_backward(BATCH, "causal_lm")
        assert (await training_client.optim_step(learning_rate=rate))["learning_rate"] == 0.5


async def test_texts_are_prompts_too_and_draws_repeat(client, model):
    one, other = [client.get_training_client(await client.create_run(model)) for _ in range(2)]
    drawn = [await each.sample(["hello there"], max_tokens=8, temperature=1.0, top_p=1.0) for each in (one, other)]
    assert drawn[0] == drawn[1]
    assert await one.sample(["hello there"], max_tokens=8, temperature=1.0, top_p=1.0) != drawn[0]


async def test_a_saved_state_is_never_written_over(client, model):
    training_client = client.get_training_client(await client.create_run(model))
    saved = await training_client.save_state("mine")
    assert saved["name"] == "mine"
    with pytest.raises(CheckpointError, match="never reused"):
        await training_client.save_state("mine")


async def test_a_refused_batch_leaves_no_gradient(client, model):
    training_client = client.get_training_client(await client.create_run(model))
    with pytest.raises(ConfigError, match="did you mean causal_lm"):
        await training_client.forward_backward(BATCH, "casual_lm")
    with pytest.raises(ConfigError, match=r"reward_modeling has no setting 'temprature'.*did you mean temperature"):
        await training_client.forward_backward(BATCH, "reward_modeling", {"temprature": 1.0})
    await training_client.forward_backward(BATCH, "causal_lm")
    assert (await training_client.optim_step())["step"] == 1


def test_an_unknown_run_is_told(client):
    with pytest.raises(NotFoundError, match="create_run"):
        client.get_training_client("run_0")
