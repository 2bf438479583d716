"""PPO on a reward of your own, by the names of the library this quick start comes from.

A model of random weights, made on the spot, learns to answer a request: name the thing that was asked for, be polite,
and say nothing else. What is asked changes from episode to episode, so no single reply earns it all, and neither does
saying everything at once. About a minute on two cores, with no network: python examples/quickstart/simple_ppo.py
"""

import random
import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

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
from fettle.config import TinyModel
from fettle.engine.local import make_tiny_model

THINGS = ("bread", "water", "salt", "soup")
POLITE = ("please", "gladly", "certainly", "welcome")


class PoliteWaiter(BaseEnvironment):
    """Asks for something. Pays for naming that, and more with one polite word; other words make both worth less."""

    def __init__(self, seed: int = 0) -> None:
        self.random = random.Random(seed)
        self.wanted = ""

    def reset(self) -> Observation:
        self.wanted = self.random.choice(THINGS)
        return Observation([Message("user", f"May I have {self.wanted} ")])

    def step(self, action: Message) -> tuple[Observation, Reward]:
        words = action.content.split()
        named, polite = self.wanted in words, any(word in POLITE for word in words)
        # The share of words that were called for: a list of everything earns little.
        share = (named + polite) / max(len(words), 1)
        components = {"named": 0.6 * named * share, "polite": 0.4 * (named and polite) * share}
        return Observation(done=True), Reward(sum(components.values()), components)


def main(num_epochs: int = 40) -> tuple[float, float]:
    """Returns the mean reward before and after."""
    torch.set_num_threads(1)  # there is no work for two in so small a model
    with tempfile.TemporaryDirectory() as scratch:
        texts = [f"May I have {thing} {word} " for thing in THINGS for word in POLITE] * 4
        folder = make_tiny_model(
            TinyModel(hidden=64, layers=1, heads=4, vocabulary=512, context=64), Path(scratch) / "model", texts=texts
        )
        model = AutoModelForCausalLM.from_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)

    policy_env = LLMEnvironment(
        model=model,
        tokenizer=tokenizer,
        mode=EnvironmentMode.SERVER,
        generation_config=GenerationConfig(max_new_tokens=3),
    )
    config = PPOConfig(
        num_epochs=num_epochs,
        num_rollouts_per_iteration=256,
        batch_size=64,
        mini_batch_size=64,
        num_ppo_epochs=2,
        learning_rate=3e-3,
        entropy_coef=0.005,
        gamma=1.0,
        eval_every=num_epochs,
        eval_episodes=64,
    )
    trainer = PPOTrainer(policy_env, [PoliteWaiter()], config)
    before = trainer.evaluate()["eval/mean_reward"]
    rows = trainer.train()
    for row in rows:
        if "reward/mean" in row and row["epoch"] % 5 == 0:
            print(
                f"epoch {row['epoch']:3.0f}  reward {row['reward/mean']:5.2f}  {'#' * round(40 * row['reward/mean'])}"
            )
    after = trainer.evaluate()["eval/mean_reward"]
    print(f"mean reward before {before:.2f}, after {after:.2f}")
    return before, after


if __name__ == "__main__":
    main()
