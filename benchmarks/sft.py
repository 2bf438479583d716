"""The SFT step: forward, backward and optimizer on eight conversations of mixed lengths, against TRL's ``SFTTrainer``.

Every step learns from the same eight sequences on both sides, so that the work is the same. TRL is given tokens, and
is tried with and without bfloat16 autocast.
"""

from random import Random
from typing import Any

from benchmarks import flops, models
from benchmarks.harness import CACHE, Outcome, Row, Settings, main
from benchmarks.machine import Floor
from benchmarks.models import END, FRAME, SIZES, framed
from benchmarks.offline import RATE, compared, median_step, text, written

ROW = Row(
    name="sft",
    work="SFT step: 8 conversations of 32 to 256 tokens, all of 17 M weights",
    peer="TRL SFTTrainer, float32 or autocast, the faster",
    target=1.5,
)
BATCH, SHORTEST, LONGEST = 8, 32, 256
PROMPT = 16
"""Tokens before the reply, the template's among them."""


def measured(settings: Settings, floor: Floor) -> Outcome:
    """The row."""
    lengths = [len(prompt) + FRAME + len(reply) + 1 for prompt, reply in conversations()]
    work = flops.trained(SIZES["small"], [0] * BATCH, 1, lengths)
    ways = [{"amp": False}, {"amp": True}]
    return compared("benchmarks.sft", settings, floor, flops=work, ways=ways[:1] if settings.quick else ways)


def conversations() -> list[tuple[str, str]]:
    """Questions and replies; whole conversations have 32 to 256 tokens."""
    rng = Random("conversations")
    lengths = [rng.randint(SHORTEST, LONGEST) for _ in range(BATCH)]
    return [(text(rng, PROMPT - FRAME), text(rng, length - PROMPT - 1)) for length in lengths]


def ours(settings: Settings, *, warm_up: int, steps: int) -> dict[str, float]:
    """Fettle's seconds a step."""
    from benchmarks.recipes import NEVER, StepTimer, carried_out, common

    rows = [{"prompt": prompt, "completion": reply} for prompt, reply in conversations()]
    path = written(rows, CACHE / "conversations.jsonl")
    timer = StepTimer()
    recipe = {
        **common(settings, models.folder("small"), steps=warm_up + steps, rate=RATE),
        "type": "sft",
        "name": "sft",
        "data": {"type": "conversations", "path": str(path), "heldout": 1},
        "batch_size": BATCH,
        "max_tokens": LONGEST,
        "evaluation": {"every": NEVER},
    }
    carried_out(recipe, timer)
    return median_step(timer.seconds, warm_up)


def peer(settings: Settings, *, warm_up: int, steps: int, amp: bool) -> dict[str, float]:
    """TRL's seconds a step."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    from benchmarks.trl_peers import StepTimer, arguments, model_and_tokenizer, run

    model, tokenizer = model_and_tokenizer(models.folder("small"))
    rows: list[dict[str, Any]] = []
    for prompt, reply in conversations():
        before = tokenizer.encode(framed(prompt), add_special_tokens=False)
        after = tokenizer.encode(reply + END, add_special_tokens=False)
        rows.append({"input_ids": before + after, "labels": [-100] * len(before) + after})
    timer = StepTimer()
    config = SFTConfig(
        **arguments(settings, amp=amp, rate=RATE, steps=warm_up + steps),
        per_device_train_batch_size=BATCH,
        max_length=LONGEST,
        train_sampling_strategy="sequential",
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    data = Dataset.from_list(rows * (warm_up + steps))
    run(SFTTrainer(model, args=config, train_dataset=data, processing_class=tokenizer, callbacks=[timer]))
    return median_step(timer.seconds, warm_up)


if __name__ == "__main__":
    main(ROW, measured)
