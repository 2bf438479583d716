"""A model in memory that is better afterwards, in environments of one's own."""

import asyncio
import copy
import random

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from fettle.compat.mrlm.algorithms import BaseTrainer
from fettle.compat.mrlm.algorithms.ppo import PPOConfig, PPOTrainer
from fettle.compat.mrlm.core import (
    BaseEnvironment,
    EnvironmentMode,
    GenerationConfig,
    LLMEnvironment,
    Message,
    Observation,
    Reward,
)
from fettle.errors import ConfigError, ModelError

QUICK = {
    "num_rollouts_per_iteration": 16,
    "batch_size": 16,
    "num_ppo_epochs": 1,
    "learning_rate": 0.01,
    "gamma": 1.0,
    "eval_episodes": 4,
}


class Letters(BaseEnvironment):
    """Pays for the share of e's."""

    def __init__(self) -> None:
        self.random = random.Random(0)

    def reset(self) -> Observation:
        return Observation([Message("environment", f"say {self.random.choice('abcd')}")])

    def step(self, action: Message) -> tuple[Observation, Reward]:
        return Observation(done=True), Reward(action.content.count("e") / max(len(action.content), 1))


@pytest.fixture
def policy_env(model):
    return LLMEnvironment(
        model=AutoModelForCausalLM.from_pretrained(model),
        tokenizer=AutoTokenizer.from_pretrained(model),
        mode=EnvironmentMode.SERVER,
        generation_config=GenerationConfig(max_new_tokens=8),
    )


def test_the_callers_own_model_is_better_afterwards(policy_env):
    held, before = policy_env.model, copy.deepcopy(policy_env.model.state_dict())
    trainer: BaseTrainer = PPOTrainer(
        policy_env, [Letters()], PPOConfig(num_epochs=25, eval_every=25, **QUICK | {"learning_rate": 0.02})
    )
    start = trainer.evaluate()
    rows = trainer.train()
    end = trainer.evaluate()
    assert policy_env.model is held
    assert any(not torch.equal(before[name], value) for name, value in held.state_dict().items())
    assert start["eval/mean_reward"] < 0.1
    assert end["eval/mean_reward"] > 0.3
    assert end["eval/min_reward"] <= end["eval/mean_reward"] <= end["eval/max_reward"]
    assert end["eval/mean_length"] == 1
    assert [row["eval/mean_reward"] for row in rows if "eval/mean_reward" in row][-1] == end["eval/mean_reward"]
    trained = next(row for row in rows if row["epoch"] == 1)
    for name in ("total", "value", "entropy"):
        assert f"loss/{name}" in trained
    for name in ("approx_kl", "clip_fraction"):
        assert f"diagnostics/{name}" in trained


async def test_it_trains_where_an_event_loop_is_running(policy_env):
    trainer = PPOTrainer(policy_env, [Letters()], PPOConfig(num_epochs=1, **QUICK))
    assert asyncio.get_running_loop().is_running()
    assert trainer.train()


def test_checkpoints_are_read_back_and_others_refused(policy_env, tmp_path):
    trainer = PPOTrainer(policy_env, [Letters()], PPOConfig(num_epochs=1, **QUICK))
    trainer.save_checkpoint(tmp_path / "before")
    before = copy.deepcopy(policy_env.model.state_dict())
    trainer.train()
    trainer.load_checkpoint(tmp_path / "before")
    assert all(torch.equal(before[name], value) for name, value in policy_env.model.state_dict().items())
    with pytest.raises(ModelError, match="nowhere"):
        trainer.load_checkpoint(tmp_path / "nowhere")


def test_an_output_folder_holds_the_run(policy_env, tmp_path):
    PPOTrainer(policy_env, [Letters()], PPOConfig(num_epochs=2, **QUICK), output_dir=tmp_path).train()
    [folder] = tmp_path.iterdir()
    assert {"metrics.jsonl", "checkpoints", "transcripts"} <= {path.name for path in folder.iterdir()}


def test_rows_are_told_every_so_often(policy_env):
    config = PPOConfig(num_epochs=4, log_every=2, eval_every=4, **QUICK)
    rows = PPOTrainer(policy_env, [Letters()], config).train()
    assert [row["epoch"] for row in rows if "reward/mean" in row] == [2, 4]


def test_several_environments_are_mixed(policy_env, guessing):
    rows = PPOTrainer(policy_env, [Letters(), guessing], PPOConfig(num_epochs=1, **QUICK)).train()
    row = next(row for row in rows if row["epoch"] == 1 and "reward/mean" in row)
    assert row["reward/component/turn"] > 0
    assert row["reward/component/Letters-0"] >= 0


def test_a_policy_that_is_frozen_is_refused(policy_env):
    policy_env.set_mode(EnvironmentMode.CLIENT)
    assert not any(parameter.requires_grad for parameter in policy_env.model.parameters())
    with pytest.raises(ConfigError, match=r"mode=EnvironmentMode\.SERVER"):
        PPOTrainer(policy_env, [Letters()])
    policy_env.set_mode(EnvironmentMode.SERVER)
    with pytest.raises(ConfigError, match="eval_envs is empty"):
        PPOTrainer(policy_env, [])


def test_weights_that_came_frozen_stay_so(model):
    module = AutoModelForCausalLM.from_pretrained(model)
    module.get_input_embeddings().weight.requires_grad_(False)
    held = LLMEnvironment(module, AutoTokenizer.from_pretrained(model), EnvironmentMode.SERVER)
    assert not module.get_input_embeddings().weight.requires_grad
    with pytest.raises(ConfigError, match="PPOTrainer trains all"):
        PPOTrainer(held, [Letters()])
