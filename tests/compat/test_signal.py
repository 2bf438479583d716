"""The documented client: verbs in order, results by name, mistakes with the names that are right."""

import asyncio
import math
import warnings
from pathlib import Path

import numpy as np
import pytest

from fettle.config import documented
from fettle.errors import CheckpointError, ConfigError, LossInputError, ModelError, NotFoundError

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


@pytest.mark.parametrize("rate", [-1, math.nan, math.inf, "fast"])
async def test_a_rate_that_cannot_be_never_reaches_the_weights(client, model, rate):
    training_client = client.get_training_client(await client.create_run(model))
    await training_client.forward_backward(BATCH, "causal_lm")
    with pytest.raises(ConfigError, match=rf"^optim_step: 'learning_rate' should be .* \(got {rate!r}\)$"):
        training_client.optim_step(learning_rate=rate)
    stepped = await training_client.optim_step()
    assert (stepped["step"], stepped["learning_rate"]) == (1, 3e-4)
    assert math.isfinite((await training_client.forward_backward(BATCH, "causal_lm"))["loss"])


async def test_a_rate_holds_from_its_own_step_on(client, model):
    training_client = client.get_training_client(await client.create_run(model))
    await training_client.forward_backward(BATCH, "causal_lm")
    one = training_client.optim_step()
    again = training_client.forward_backward(BATCH, "causal_lm")
    other = training_client.optim_step(learning_rate=0.5)
    stepped, _, stepped_faster = await asyncio.gather(one, again, other)
    assert [stepped["learning_rate"], stepped_faster["learning_rate"]] == [3e-4, 0.5]


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


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"head": "rewad"}, "create_run: 'head' is 'rewad', which is none of value, reward; did you mean reward?"),
        ({"lora_r": 0}, "create_run, lora_r: 'lora.rank' should be greater than or equal to 1 (got 0)"),
        ({"learning_rate": -1}, "create_run: 'learning_rate' should be greater than or equal to 0 (got -1)"),
        ({"base_model": 7}, "create_run, base_model: 'model' takes a text (got 7): put it in quotes"),
    ],
)
async def test_a_run_that_cannot_be_is_refused_in_a_sentence(client, model, arguments, said):
    with pytest.raises(ConfigError) as refused:
        await client.create_run(**{"base_model": model, **arguments})
    assert refused.value.message == said


async def test_draws_that_cannot_be_are_refused_in_a_sentence(client, model):
    training_client = client.get_training_client(await client.create_run(model))
    with pytest.raises(ConfigError) as refused:
        await training_client.sample(["hello"], temperature=-1)
    assert refused.value.message == "sample: 'temperature' should be greater than or equal to 0 (got -1)"


async def test_a_batch_or_keywords_without_names_are_refused(client, model):
    training_client = client.get_training_client(await client.create_run(model))
    with pytest.raises(LossInputError, match=r"^batch_data is \[1\]: give a mapping of names to arrays"):
        await training_client.forward_backward([1], "ppo")
    with pytest.raises(ConfigError, match=r"^loss_kwargs is \[1\]: give a mapping"):
        await training_client.forward_backward(BATCH, "causal_lm", [1])


@pytest.mark.parametrize(
    ("saved", "said"),
    [
        (("checkpoints/step-000002",), r"give one of its checkpoints, \S*/checkpoints/step-000002$"),
        (("sft/checkpoints/a", "rl/checkpoints/b"), r"give one of its checkpoints, \S*/rl/\S*/b, \S*/sft/\S*/a$"),
        ((), "has no checkpoint yet$"),
    ],
)
async def test_of_a_run_folder_the_checkpoints_are_named(client, tmp_path, saved, said):
    run = tmp_path / "run"
    for folder in (".", *saved):
        (run / folder).mkdir(parents=True)
    (run / "config.yaml").touch()
    with pytest.raises(ModelError, match=rf"run is the folder of a run: .*{said}"):
        await client.create_run(str(run))


@pytest.mark.parametrize("loss", ["enhanced_ppo", "reward_modeling"])
async def test_a_harmful_default_is_told_of_the_line_that_took_it(client, model, loss):
    documented._warn_once.cache_clear()
    training_client = client.get_training_client(await client.create_run(model))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", UserWarning)
        with pytest.raises(LossInputError):
            await training_client.forward_backward({}, loss)
    assert [Path(warning.filename) for warning in told] == [Path(__file__)]
