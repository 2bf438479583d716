"""A loop of your own over the seam: sample, reward, step. The reward is any Python you like.

A model of random weights learns to say more and more e's. Takes a few seconds: python examples/own_loop.py
"""

import asyncio
import tempfile
from pathlib import Path

from fettle.advantages import group_centered
from fettle.broker import Broker
from fettle.chat import load_tokenizer
from fettle.config import PPO, AdamW, LocalEngine, PolicySpec, SamplingParams, TinyModel
from fettle.engine.local import LocalBackend, make_tiny_model
from fettle.types import datum


async def train(folder: Path, steps: int = 30) -> tuple[list[float], list[str]]:
    """Returns the mean reward of each step, and the first text that each step drew."""
    model = make_tiny_model(TinyModel(hidden=64, layers=1, heads=2), folder / "model", texts=["here we see trees"] * 9)
    engine = Broker(LocalBackend(LocalEngine(), checkpoints=folder / "checkpoints"))
    policy = await engine.create_policy(PolicySpec(model=model))
    prompt, say_e = [7], 7 + ord("e") - ord("!")  # after the 7 special tokens, bytes stand in order from "!"
    tokenizer = load_tokenizer(model)
    means, texts = [], []
    for step in range(steps):
        sampler = await policy.sampler()
        group = await sampler.sample(prompt, 32, SamplingParams(max_tokens=8, seed=step))
        rewards = [completion.tokens.count(say_e) / 8 for completion in group]
        data = [
            datum(
                tokens=[*prompt, *completion.tokens],
                loss_mask=[0] * len(prompt) + [1] * len(completion.tokens),
                sampling_logprobs=[0] * len(prompt) + completion.logprobs,
                advantages=[0] * len(prompt) + [float(advantage)] * len(completion.tokens),
            )
            for completion, advantage in zip(group, group_centered(rewards), strict=True)
        ]
        # Issued together: the engine runs them in this order, and the loop waits once.
        await asyncio.gather(policy.forward_backward(data, PPO()), policy.optim_step(AdamW(learning_rate=0.01)))
        means.append(sum(rewards) / len(rewards))
        texts.append(tokenizer.decode(group[0].tokens))
    engine.close()
    return means, texts


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        means, texts = asyncio.run(train(Path(scratch)))
    print(f"before: {texts[0]!r}")
    for step in range(0, len(means), 5):
        print(f"step {step:2}  reward {means[step]:.2f}  {'#' * round(40 * means[step])}")
    print(f"after:  {texts[-1]!r}")
