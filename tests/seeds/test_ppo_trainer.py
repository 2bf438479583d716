"""A library's report on its PPO trainer: its own code, with the import root, the model's name and the epochs changed.

Its ``eval_envs = [...]`` is a placeholder by its own word, and is filled in.
"""

import copy
import random
import statistics
import warnings

import pytest
import torch
from transformers import AutoModelForCausalLM

from fettle.compat.mrlm.core import BaseEnvironment, Message, Observation, Reward
from fettle.config import TinyModel
from fettle.engine.local import make_tiny_model

from .blocks import blocks, executed

[SNIPPET] = blocks("ppo_trainer.md")
[COMMAND] = blocks("ppo_trainer.md", "bash")


class Letters(BaseEnvironment):
    """Pays for the share of letters in a reply."""

    def __init__(self) -> None:
        self.random = random.Random(0)

    def reset(self) -> Observation:
        return Observation([Message("user", self.random.choice(["hello", "thank you"]))])

    def step(self, action: Message) -> tuple[Observation, Reward]:
        letters = sum(c.isascii() and c.isalpha() for c in action.content)
        return Observation(done=True), Reward(letters / max(len(action.content), 1))


@pytest.fixture
def model(tmp_path):
    """One whose replies are short, and which the report's small learning rate moves: its last norm is large."""
    settings = TinyModel(hidden=16, layers=1, heads=1, context=32, vocabulary=300)
    folder = make_tiny_model(settings, tmp_path / "model", texts=["hello there, thank you"] * 9)
    module = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        module.model.norm.weight.mul_(1024)
        module.model.embed_tokens.weight.div_(1024)
    module.generation_config.eos_token_id = [module.config.eos_token_id, *range(100, 260)]
    module.save_pretrained(folder)
    return folder


async def test_the_snippet_runs_and_its_policy_really_improves(model):
    code = SNIPPET.replace("from mrlm.", "from fettle.compat.mrlm.").replace('"gpt2"', repr(model))
    code = code.replace("num_epochs=100", "num_epochs=10")
    code = code.replace("eval_envs = [...]", "eval_envs = [Letters()]")
    before = copy.deepcopy(AutoModelForCausalLM.from_pretrained(model).state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # its gamma of 0.99, which warns
        names = await executed(code, {"Letters": Letters})
    after = names["policy_env"].model.state_dict()
    assert any(not torch.equal(before[name], value) for name, value in after.items())
    rewards = [row["reward/mean"] for row in names["trainer"].metrics_history if "reward/mean" in row]
    assert len(rewards) == 10
    assert statistics.fmean(rewards[-5:]) > statistics.fmean(rewards[:5]) + 0.2


def test_the_example_that_it_names_is_there(request):
    script = COMMAND.splitlines()[-1].removeprefix("python ")
    assert (request.config.rootpath / script).is_file()
