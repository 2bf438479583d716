"""The DPO step: reference, forward, backward and optimizer on eight pairs, against TRL's ``DPOTrainer``.

Every step learns from the same eight pairs on both sides. The reference is where the policy begins; Fettle reads it in
every step. TRL is tried with and without bfloat16 autocast, and reading the reference in every step or once before the
first. What it reads before the first step is not in its time, which favours it.
"""

from dataclasses import replace
from random import Random

from benchmarks import flops, models
from benchmarks.harness import CACHE, Outcome, Row, Settings, main
from benchmarks.machine import Floor
from benchmarks.models import FRAME, SIZES, framed
from benchmarks.offline import RATE, compared, median_step, text, written

ROW = Row(
    name="dpo",
    work="DPO step: 8 pairs, prompts of 64 tokens, replies of 16 to 64, all of 17 M weights",
    peer="TRL DPOTrainer at the fastest of the settings tried",
    target=1.5,
)
PAIRS, PROMPT, SHORTEST, LONGEST = 8, 64, 16, 64
BETA = 0.1


def measured(settings: Settings, floor: Floor) -> Outcome:
    """The row."""
    lengths = [len(reply) + 1 for _, chosen, rejected in pairs() for reply in (chosen, rejected)]
    once = flops.answered(SIZES["small"], [PROMPT] * PAIRS, 2, lengths)
    ways = [{"amp": amp, "precomputed": before} for before in (False, True) for amp in (False, True)]
    # The reference is read, the policy trained.
    found = compared("benchmarks.dpo", settings, floor, flops=4 * once, ways=ways[:1] if settings.quick else ways)
    note = "the floor counts the reading of the reference; TRL's reading of it before the first step is not timed"
    return replace(found, notes=[note])


def pairs() -> list[tuple[str, str, str]]:
    """Prompts, each with a chosen and a rejected reply."""
    rng = Random("pairs")
    lengths = [[rng.randint(SHORTEST, LONGEST) - 1 for _ in range(2)] for _ in range(PAIRS)]
    return [(text(rng, PROMPT - FRAME), text(rng, first), text(rng, second)) for first, second in lengths]


def ours(settings: Settings, *, warm_up: int, steps: int) -> dict[str, float]:
    """Fettle's seconds a step."""
    from benchmarks.recipes import NEVER, StepTimer, carried_out, common

    rows = [{"prompt": prompt, "chosen": chosen, "rejected": rejected} for prompt, chosen, rejected in pairs()]
    path = written(rows, CACHE / "pairs.jsonl")
    timer = StepTimer()
    recipe = {
        **common(settings, models.folder("small"), steps=warm_up + steps, rate=RATE),
        "type": "preference",
        "name": "dpo",
        "data": {"type": "preferences", "path": str(path), "heldout": 1},
        "batch_size": PAIRS,
        "max_tokens": PROMPT + LONGEST,
        "loss": {"type": "dpo", "beta": BETA},
        "evaluation": {"every": NEVER},
    }
    carried_out(recipe, timer)
    return median_step(timer.seconds, warm_up)


def peer(settings: Settings, *, warm_up: int, steps: int, amp: bool, precomputed: bool) -> dict[str, float]:
    """TRL's seconds a step, the reference read in it or before the first."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    from benchmarks.trl_peers import StepTimer, arguments, model_and_tokenizer, run

    model, tokenizer = model_and_tokenizer(models.folder("small"))
    timer = StepTimer()
    config = DPOConfig(
        **arguments(settings, amp=amp, rate=RATE, steps=warm_up + steps),
        per_device_train_batch_size=PAIRS,
        max_length=PROMPT + LONGEST,
        beta=BETA,
        precompute_ref_log_probs=precomputed,
        train_sampling_strategy="sequential",
    )
    rows = [{"prompt": framed(prompt), "chosen": chosen, "rejected": rejected} for prompt, chosen, rejected in pairs()]
    data = Dataset.from_list(rows * (warm_up + steps))
    run(DPOTrainer(model, args=config, train_dataset=data, processing_class=tokenizer, callbacks=[timer]))
    return median_step(timer.seconds, warm_up)


if __name__ == "__main__":
    main(ROW, measured)
