"""The client of a service: runs and their verbs, futures, samples, checkpoints, and who may hold what."""

import asyncio
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
import safetensors.numpy

from fettle.client import FutureGroup, ServiceClient
from fettle.config import PPO
from fettle.errors import (
    AuthenticationError,
    CheckpointError,
    ConfigError,
    LossInputError,
    NotFoundError,
    SequenceError,
    StateError,
)
from fettle.service.callers import Caller
from fettle.types import datum
from tests.service.served import serving

BATCH = {"input_ids": np.tile(np.arange(8, 16), (2, 1)), "attention_mask": np.ones((2, 8), int)}


@pytest_asyncio.fixture
async def client(served):
    async with ServiceClient(served.url, served.key) as made:
        yield made


@pytest_asyncio.fixture
async def training(client):
    return client.get_training_client(await client.create_run("tiny", lora_r=4, learning_rate=0.01))


async def test_a_run_learns_what_it_is_shown(client):
    training = client.get_training_client(await client.create_run("tiny", lora_r=None, learning_rate=0.01))
    results = [result async for result in training.train_epoch([BATCH] * 20, "causal_lm")]
    assert [result["step"] for result in results] == list(range(1, 21))
    assert results[-1]["loss"] < results[0]["loss"] / 4
    assert all(result["grad_norm"] > 0 for result in results)
    drawn = await training.sample([[8, 9]], max_tokens=3, temperature=0.0, return_logprobs=True)
    assert drawn["token_ids"] == [[10, 11, 12]]
    assert len(drawn["logprobs"][0]) == 3
    assert drawn["policy_version"] == 20


async def test_verbs_begin_when_called_and_keep_their_order(training):
    verbs = [verb for _ in range(3) for verb in (training.forward_backward(BATCH, "causal_lm"), training.optim_step())]
    results = await asyncio.gather(*verbs)
    assert [result["step"] for result in results] == [0, 1, 1, 2, 2, 3]
    losses = [result["loss"] for result in results[0::2]]
    assert losses == sorted(losses, reverse=True)


async def test_the_first_await_orders_and_the_second_gives_the_result(training):
    group = FutureGroup()
    for _ in range(3):
        group.add(await training.forward_backward_async(BATCH, "causal_lm"))
        group.add(await training.optim_step_async())
    results = await group.wait_all(timeout=60)
    assert [result["step"] for result in results] == [0, 1, 1, 2, 2, 3]


async def test_any_interleaving_of_submissions_and_waits_gives_the_numbers_of_one_by_one(client):
    found = []
    for seed in range(4):
        order = np.random.default_rng(seed)
        training = client.get_training_client(await client.create_run("tiny", lora_r=4, learning_rate=0.01))
        told, open_ = {}, []
        for number in range(8):
            verb = training.optim_step() if number % 2 else training.forward_backward(BATCH, "causal_lm")
            open_.append((number, verb))
            while open_ and (seed == 0 or order.random() < 0.5):
                place, future = open_.pop(0 if seed == 0 else int(order.integers(len(open_))))
                told[place] = await future
        told |= {place: await future for place, future in open_}
        found.append([(told[place].get("loss"), told[place]["grad_norm"]) for place in sorted(told)])
    assert found[1:] == found[:1] * 3


async def test_a_rate_holds_from_its_own_step_on(training):
    steps = []
    for rate in (None, 0.5, None):
        training.forward_backward(BATCH, "causal_lm")
        steps.append(training.optim_step(rate))
    assert [(await step)["learning_rate"] for step in steps] == [0.01, 0.5, 0.5]


async def test_losses_of_ours_are_taken_too(training):
    data = [datum([5, 9, 41, 7], [0, 0, 1, 1], sampling_logprobs=[0, 0, -5, -5], advantages=[0, 0, 1, 1])]
    by_name = await training.forward(data, "ppo", {"clip_low": 0.1})
    by_settings = await training.forward_backward(data, PPO(clip_low=0.1))
    assert by_name["loss"] == by_settings["loss"]
    assert by_name["logprobs"][0].shape == (4,)
    assert (await training.optim_step())["grad_norm"] > 0


async def test_a_refused_batch_leaves_no_gradient_and_no_hole(training):
    with pytest.raises(ConfigError, match="did you mean causal_lm"):
        await training.forward_backward(BATCH, "casual_lm")
    with pytest.raises(ConfigError, match=r"no setting 'temprature'.*did you mean temperature"):
        await training.forward_backward(BATCH, "reward_modeling", {"temprature": 1.0})
    with pytest.raises(LossInputError, match="give a mapping of names to arrays"):
        await training.forward_backward([1], "ppo")
    with pytest.raises(LossInputError):
        await training.forward_backward([datum([1, 10**6], [0, 1])], "causal_lm")
    await training.forward_backward(BATCH, "causal_lm")
    assert (await training.optim_step())["step"] == 1


async def test_whoever_attaches_shuts_out_the_holder_before(client, served, training):
    await training.forward_backward(BATCH, "causal_lm")
    async with ServiceClient(served.url, served.key) as other:
        newer = other.get_training_client(training.run_id)
        assert (await newer.optim_step())["step"] == 1
        with pytest.raises(SequenceError, match="incarnation"):
            await training.forward_backward(BATCH, "causal_lm")


async def test_whoever_does_not_take_over_goes_on_where_the_holder_is(client, served, training):
    await training.train_batch(BATCH, "causal_lm")
    async with ServiceClient(served.url, served.key) as other:
        beside = other.get_training_client(training.run_id, take_over=False)
        assert (await beside.train_batch(BATCH, "causal_lm"))["step"] == 2
        assert (await beside.train_batch(BATCH, "causal_lm"))["step"] == 3
        await client.get_sampling_client(run_id=training.run_id)
        assert (await beside.train_batch(BATCH, "causal_lm"))["step"] == 4
    assert (await training.status())["version"] == 4


async def test_a_number_that_another_used_meanwhile_is_passed_over(client, training):
    await training.train_batch(BATCH, "causal_lm")
    await client.get_sampling_client(run_id=training.run_id)  # the service gives its pin the next number
    assert (await training.train_batch(BATCH, "causal_lm"))["step"] == 2


async def test_many_prompts_are_drawn_in_parts_as_one_result(training):
    prompts = ["one two", [5, 9], "three"] * 3
    drawn = await training.batch_sample(prompts, batch_size=4, max_tokens=3)
    assert [len(drawn[name]) for name in ("outputs", "token_ids", "stop_reasons")] == [9, 9, 9]
    assert drawn["policy_version"] == 0


async def test_states_are_saved_taken_up_again_and_never_written_over(client, training):
    first = await training.save_state("first")
    losses = [(await training.train_batch(BATCH, "causal_lm"))["loss"] for _ in range(2)]
    with pytest.raises(CheckpointError, match="first"):
        await training.save_state("first")
    await training.load_state(first["checkpoint_path"])
    again = [(await training.train_batch(BATCH, "causal_lm"))["loss"] for _ in range(2)]
    assert again == losses
    assert losses[1] < losses[0]
    unnamed = await training.save_state()
    assert unnamed["name"].startswith("step-")


async def test_samples_come_from_runs_checkpoints_and_models(client, training):
    saved = await training.save_state("here")
    sources = [
        {"run_id": training.run_id},
        {"checkpoint": saved["checkpoint_path"]},
        {"base_model": "tiny"},
    ]
    settings = {"max_tokens": 4, "temperature": 0.0}
    drawn = [
        await (await client.get_sampling_client(**each)).sample(["one", [5, 9]], n=2, **settings) for each in sources
    ]
    assert drawn[0]["token_ids"] == drawn[1]["token_ids"] == drawn[2]["token_ids"]
    assert [len(each["outputs"]) for each in drawn] == [4, 4, 4]
    with pytest.raises(ConfigError, match="draws from one thing"):
        await client.get_sampling_client()


async def test_a_checkpoint_comes_here_as_it_was_saved(client, training, tmp_path):
    saved = await training.save_state("mine")
    folder = await client.download_checkpoint(saved["checkpoint_path"], tmp_path / "mine")
    assert safetensors.numpy.load_file(folder / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match="give the name of a new one"):
        await client.download_checkpoint(saved["checkpoint_path"], folder)
    with pytest.raises(NotFoundError):
        await client.download_checkpoint(f"{training.run_id}/weights/other", tmp_path / "other")
    assert {path.name for path in tmp_path.iterdir()} == {"mine"}


async def test_a_checkpoint_that_was_altered_on_the_way_is_refused(client, training, tmp_path, served):
    saved = await training.save_state("altered")
    entry = served.service.checkpoint(Caller("one", "", admin=False), saved["checkpoint_path"])
    weights = Path(entry.path) / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(CheckpointError, match="did not come as it was saved: download it again"):
        await client.download_checkpoint(saved["checkpoint_path"], tmp_path / "altered")
    assert not list(tmp_path.iterdir())


async def test_checkpoints_are_listed_kept_for_a_while_published_and_deleted(client, training, served):
    saved = await training.save_state("one")
    [listed] = await client.list_checkpoints(training.run_id)
    assert listed["uri"] == saved["checkpoint_path"]
    assert (await client.set_checkpoint_ttl(listed["id"], 3600.0))["expires_at"] is not None
    async with ServiceClient(served.url, served.other_key) as other:
        with pytest.raises(NotFoundError):
            await other.get_sampling_client(checkpoint=listed["id"])
        assert (await client.publish_checkpoint(listed["id"]))["public"] is True
        await other.get_sampling_client(checkpoint=listed["id"])
        assert (await client.publish_checkpoint(listed["id"], public=False))["public"] is False
    await client.delete_checkpoint(listed["uri"])
    assert await client.list_checkpoints(training.run_id) == []


async def test_a_state_folder_may_be_named_from_where_the_service_was_started(tmp_path, tiny_model, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with serving(Path("state"), tiny_model) as service:
        async with ServiceClient(service.url, service.key) as client:
            training = client.get_training_client(await client.create_run("tiny", lora_r=4))
            saved = await training.save_state("one")
            assert saved["checkpoint_path"] == f"fettle://{training.run_id}/weights/one"


async def test_runs_are_listed_looked_at_paused_and_completed(client, training):
    await training.train_batch(BATCH, "causal_lm")
    await training.forward_backward(BATCH, "causal_lm")
    assert training.run_id in {run["id"] for run in await client.list_runs()}
    assert (await training.pause())["state"] == "paused"
    with pytest.raises(StateError, match="paused"):
        await training.optim_step()
    assert (await training.resume())["state"] == "active"
    assert (await training.optim_step())["step"] == 2
    rows: list[dict[str, float]] = []
    while len(rows) < 2:  # rows are written beside the requests
        rows = await training.metrics()
    assert [row["step"] for row in rows] == [1, 2]
    assert (await training.complete())["state"] == "completed"


async def test_texts_become_tokens_and_back(client, training):
    [tokens] = await training.tokenize(["one two three"])
    assert await training.detokenize([tokens]) == ["one two three"]
    assert len(await training.apply_chat_template([{"role": "user", "content": "one"}])) > 1


async def test_models_and_usage_are_told(client, training):
    await training.train_batch(BATCH, "causal_lm")
    assert "tiny" in {model["id"] for model in await client.models()}
    assert await client.usage()


async def test_other_tenants_and_wrong_keys_find_nothing(served, training):
    async with ServiceClient(served.url, served.other_key) as other:
        with pytest.raises(NotFoundError, match="there is no run"):
            await other.get_training_client(training.run_id).optim_step()
    async with ServiceClient(served.url, "no-such-key") as stranger:
        with pytest.raises(AuthenticationError):
            await stranger.list_runs()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"head": "rewad"}, "create_run: 'head' is 'rewad', which is none of value, reward; did you mean reward?"),
        ({"lora_r": 0}, "create_run, lora_r: 'lora.rank' should be greater than or equal to 1 (got 0)"),
        ({"learning_rate": -1}, "create_run: 'learning_rate' should be greater than or equal to 0 (got -1)"),
    ],
)
async def test_a_run_that_cannot_be_is_refused_in_a_sentence(client, arguments, said):
    with pytest.raises(ConfigError) as refused:
        await client.create_run("tiny", **arguments)
    assert refused.value.message == said


async def test_a_model_that_is_not_served_is_told_with_those_that_are(client):
    with pytest.raises(NotFoundError, match="tiny"):
        await client.create_run("tiney")
