"""The warm checkpoint of the race to a reward: a little model that works sums column by column, sloppily.

It is the warm-up of ``configs/demo.yaml``, with instructions before each sum: 1.2 million random weights, shown each of
11 200 worked solutions once, most of which are wrong (a carry forgotten, a sign misread). What comes out writes
solutions well, and is right in less than half of them; practice has to choose. Its folder is named for its recipe.
Held-out sums are never shown.
"""

import shutil
from pathlib import Path

from benchmarks import models
from benchmarks.harness import Settings
from benchmarks.recipes import carried_out, common
from fettle.chat import Template, load_tokenizer
from fettle.config import LocalEngine, ReasoningGym, SamplingParams
from fettle.environments import Suite, suite

HELDOUT = 200
MAX_TOKENS = 48
TEMPERATURE = 0.8
ASKED = """Work the sum out column by column, from the left, and put the columns together. Give the answer in its tags.
For example, 42 - 25:
tens 4 - 2 = 2
ones 2 - 5 = -3
20 - 3 = 17
<answer>17</answer>"""
"""Before each question, as prompts of tasks have instructions."""
SUMS = {
    "type": "reasoning_gym",
    "task": "chain_sum",
    "settings": {"min_terms": 2, "max_terms": 2, "min_digits": 2, "max_digits": 2},
    "system": ASKED,
    "heldout": HELDOUT,
}
STEPS, RATE = 350, 2e-3
LESSON = {"slips": 0.62, "size": 11_200, "steps": STEPS, "rate": RATE}
KEPT = ("config.json", "generation_config.json", "model.safetensors", "chat_template.jinja", "tokenizer.json")


def checkpoint() -> str:
    """The folder of the warm checkpoint, with the file of its tasks in it; made if need be, in about a minute."""
    return models.cached("worked", {"sums": SUMS, "lesson": LESSON}, _make)


def tasks() -> Suite:
    """The sums; none of those held out was shown."""
    return suite(ReasoningGym.model_validate(SUMS))


async def accuracy(folder: str, *, seed: int = 0) -> float:
    """The share of held-out sums that a model gets right, by Fettle's own evaluation."""
    from fettle.cli.engines import engine_of
    from fettle.training.evaluation import evaluate

    template = Template(load_tokenizer(folder))
    params = SamplingParams(
        max_tokens=MAX_TOKENS,
        temperature=TEMPERATURE,
        stop_token_ids=tuple(sorted(template.end_token_ids)),
        seed=seed,
    )
    async with engine_of(LocalEngine(device="cpu"), Path(folder)) as engine:
        found = await evaluate(
            [tasks()],
            tasks=HELDOUT,
            sampler=await engine.sampler(folder),
            template=template,
            params=params,
            seed=seed,
        )
    return found.reward


def _make(place: Path) -> None:
    lesson = {
        **common(Settings(), "", steps=STEPS, rate=RATE),
        "policy": {"model": {"type": "tiny"}},
        "type": "sft",
        "name": "warm",
        "data": {"type": "worked_sums", "tasks": SUMS, "slips": LESSON["slips"], "size": LESSON["size"]},
        "max_tokens": 256,
        "optimizer": {"learning_rate": RATE, "beta2": 0.98},
        "schedule": {"type": "cosine", "warmup_steps": 20, "final": 0.05},
        "evaluation": {"every": STEPS},
    }
    end = carried_out(lesson, root=place / "run")[-1]
    saved = end.folder / "checkpoints" / end.checkpoint
    for name in (*KEPT, "tokenizer_config.json"):
        shutil.copy(saved / name, place / name)
    shutil.rmtree(place / "run")
