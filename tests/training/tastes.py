"""Reward models of seconds: taught on pairs which of two kinds of reply to like."""

import random
from collections.abc import Sequence
from pathlib import Path

from fettle.broker import Broker
from fettle.chat import Template, load_tokenizer
from fettle.config import AdamW, LocalEngine, PolicySpec, RewardModeling
from fettle.engine.local import LocalBackend
from fettle.types import Datum, Message, datum

LETTERS, FIGURES = "abcdefghijklmnopqrstuvwxyz", "0123456789+-*/=.,;:!?() "
STEPS, PAIRS = 60, 16


async def reward_model(model: str, folder: Path, *, liked: str, disliked: str) -> str:
    """The path of a reward model that likes replies of some characters better than replies of others."""
    engine = Broker(LocalBackend(LocalEngine(threads=1), checkpoints=folder))
    template, tokenizer, rng = Template(load_tokenizer(model)), load_tokenizer(model), random.Random(0)
    prompt = template.prompt([Message("user", "game 0")])

    def reply(characters: str, preferred: float, pair: int) -> Datum:
        tokens = tokenizer.encode("".join(rng.choices(characters, k=6)), add_special_tokens=False)
        mask = [0.0] * len(prompt) + [1.0] * len(tokens)
        return datum(
            [*prompt, *tokens], mask, group=str(pair), scalars={"preferred": preferred, "weight": 1 / PAIRS}
        )  # fmt: skip

    def pairs() -> Sequence[Datum]:
        both = ((liked, 1.0), (disliked, 0.0))
        return [reply(characters, preferred, pair) for pair in range(PAIRS) for characters, preferred in both]

    try:
        policy = await engine.create_policy(PolicySpec(model=model, head="reward"))
        for _ in range(STEPS):
            result = await policy.forward_backward(pairs(), RewardModeling())
            await policy.optim_step(AdamW(learning_rate=0.01))
        assert result.metrics["preference_accuracy"] > 0.9
        return (await policy.save("reward-model", optimizer=False)).path
    finally:
        engine.close()
