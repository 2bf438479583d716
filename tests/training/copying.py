"""A task that a tiny model learns in seconds: answer with the last letter of the question."""

import json
import random
from itertools import product
from pathlib import Path

from fettle.broker import Broker
from fettle.chat import Template, load_tokenizer
from fettle.config import AdamW, CausalLM, LocalEngine, PolicySpec, TinyModel
from fettle.engine.local import LocalBackend, make_tiny_model
from fettle.types import Message, datum

LETTERS = "abcd"
CHANCE = 1 / len(LETTERS)
NOISE = ["".join(letters) for letters in product(LETTERS, repeat=3)]
ROWS = [{"prompt": f"{noise} {letter}", "answer": letter} for letter in LETTERS for noise in NOISE]


def questions(folder: Path) -> dict[str, object]:
    """The task as an environment's settings."""
    path = folder / "copying.jsonl"
    path.write_text("\n".join(map(json.dumps, ROWS)))
    return {"type": "jsonl", "path": str(path), "answer_in": "text", "system": None, "heldout": 50}


async def babbler(folder: Path) -> str:
    """A model that answers with a letter, whatever the question: so rewards come from the start."""
    start = make_tiny_model(TinyModel(hidden=32, layers=1, heads=2, context=64), folder / "blank", texts=["a b c d"])
    tokenizer, rng = load_tokenizer(start), random.Random("babble")
    engine = Broker(LocalBackend(LocalEngine(threads=1), checkpoints=folder))
    policy = await engine.create_policy(PolicySpec(model=start))
    for _ in range(40):
        data = []
        for row in rng.sample(ROWS, 64):
            prompt = Template(tokenizer).prompt([Message("user", row["prompt"])])
            reply = tokenizer.encode(rng.choice(LETTERS), add_special_tokens=False)
            data.append(datum([*prompt, *reply], [0.0] * len(prompt) + [1.0] * len(reply)))
        await policy.forward_backward(data, CausalLM())
        await policy.optim_step(AdamW(learning_rate=3e-3))
    saved = await policy.save("babbler", optimizer=False)
    engine.close()
    return saved.path
