"""The whole GRPO step: draw a batch, score it, learn from it, against TRL's ``GRPOTrainer``.

Both run their own public loop on the same model, prompts, reward, batch, lengths and optimizer settings, each
repetition in a fresh process; a step is timed from the end of one to the end of the next. The learning rate is so small
that the lengths of completions stay what they are. TRL is first tried with and without bfloat16 autocast, in
micro-batches of 8 and of the whole batch, and with a static cache at the best of these; it takes the fastest.
"""

import json
import statistics
import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

from benchmarks import flops, models
from benchmarks.figures import ratio
from benchmarks.harness import CACHE, Outcome, Row, Settings, in_fresh_process, in_turn, main, told
from benchmarks.machine import Floor
from benchmarks.models import FRAME, framed
from benchmarks.workload import GROUP, MAX_TOKENS, PROMPTS

ROW = Row(
    name="grpo",
    work="whole GRPO step (rollout, scoring, update): 16 prompts x 8, prompts of 16 to 128 tokens, 0.85 M",
    peer="TRL GRPOTrainer at the fastest of the settings tried",
    target=5.0,
)
RATE = 1e-7
HELDOUT = 8
ASKED = 400
"""Different prompts in the file."""


def measured(settings: Settings, floor: Floor) -> Outcome:
    """The row."""
    return compared(settings, floor, size="tiny")


def compared(settings: Settings, floor: Floor, *, size: str) -> Outcome:
    """The whole step of both sides, for a model of a size."""
    steps = {"warm_up": 1, "steps": 2 if settings.quick or size == "small" else 4}
    tried = candidates(settings, size)
    best = min(tried, key=lambda each: each["seconds"])
    chosen = {name: best[name] for name in ("amp", "micro", "static")}
    sides = {
        "ours": lambda: in_fresh_process("benchmarks.grpo:ours", settings, size=size, **steps),
        "peer": lambda: in_fresh_process("benchmarks.grpo:peer", settings, size=size, **chosen, **steps),
    }
    found = in_turn(sides, settings.repetitions)
    times = {name: [each["seconds"] for each in runs] for name, runs in found.items()}
    told_of = {name: _side(times[name], found[name], settings, floor, size) for name in sides}
    return Outcome(
        ratio(times["peer"], times["ours"]),
        told_of["ours"],
        {**told_of["peer"], "chosen": chosen, "tried": tried},
        notes=["TRL's settings were chosen by its fastest step before the measurement"],
    )


def _side(
    times: list[float], runs: Sequence[Mapping[str, Any]], settings: Settings, floor: Floor, size: str
) -> dict[str, Any]:
    mean = round(statistics.fmean(each["mean_length"] for each in runs))
    lengths = [(16 + 128) // 2] * PROMPTS
    replies = [mean] * PROMPTS * GROUP
    # Drawn once, and trained on once.
    least = 4 * flops.answered(models.SIZES[size], lengths, GROUP, replies)
    side = told(times, flops=least, floor=floor, dtype=settings.dtype)
    return {**side, "mean_length": statistics.fmean(each["mean_length"] for each in runs)}


def candidates(settings: Settings, size: str) -> list[dict[str, Any]]:
    """TRL's settings, each with the seconds of one step after a warm-up."""
    ways: list[dict[str, Any]] = [
        {"amp": amp, "micro": micro, "static": False}
        for amp in ((False,) if settings.quick else (False, True))
        for micro in ((128,) if settings.quick else (128, 8))
    ]
    tried = [{**way, **_one_step(settings, size, way)} for way in ways]
    if not settings.quick:
        # Under autocast TRL's static cache fails: it is float32, and is given bfloat16.
        best = min((each for each in tried if not each["amp"]), key=lambda each: each["seconds"])
        way = {"amp": False, "micro": best["micro"], "static": True}
        tried.append({**way, **_one_step(settings, size, way)})
    return tried


def _one_step(settings: Settings, size: str, way: Mapping[str, Any]) -> dict[str, float]:
    found = in_fresh_process("benchmarks.grpo:peer", settings, size=size, warm_up=1, steps=1, **way)
    return {"seconds": found["seconds"]}


def prompts() -> list[str]:
    """What users ask: random letters, so that with the template's frame a prompt has 16 to 128 tokens."""
    rng = Random("questions")
    lengths = [rng.randint(16, 128) - FRAME for _ in range(ASKED)]
    return ["".join(rng.choices(string.ascii_lowercase, k=length)) for length in lengths]


def tasks() -> Path:
    """The prompts as a file of tasks."""
    path = CACHE / "questions.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"prompt": prompt, "answer": "-"}) + "\n" for prompt in prompts()))
    return path


def ours(settings: Settings, *, size: str, warm_up: int, steps: int) -> dict[str, Any]:
    """Fettle's seconds a step."""
    from benchmarks.recipes import StepTimer, carried_out

    timer = StepTimer()
    carried_out(recipe(settings, models.folder(size), str(tasks()), steps=warm_up + steps), timer)
    lengths = [row["rollout/tokens_mean"] for row in timer.rows[warm_up:]]
    return {"seconds": statistics.median(timer.seconds[warm_up:]), "mean_length": statistics.fmean(lengths)}


def recipe(settings: Settings, model: str, path: str, *, steps: int) -> dict[str, Any]:
    """GRPO as Fettle is told of it."""
    from benchmarks.recipes import NEVER, common

    return {
        **common(settings, model, steps=steps, rate=RATE),
        "type": "rl",
        "name": "grpo",
        "environments": [
            {
                "type": "jsonl",
                "path": path,
                "reward": "benchmarks.scored:even_share",
                "answer_in": "text",
                "system": None,
                "heldout": HELDOUT,
            }
        ],
        "preset": "grpo",
        "loss": {"kl": None},  # as TRL is told: no reference, and each token counts the same
        "reduction": {"type": "token_mean"},
        "groups_per_step": PROMPTS,
        "group_size": GROUP,
        "sampling": {"max_tokens": MAX_TOKENS},
        "evaluation": {"every": NEVER, "tasks": HELDOUT},
    }


def peer(
    settings: Settings, *, size: str, warm_up: int, steps: int, amp: bool, micro: int, static: bool
) -> dict[str, Any]:
    """TRL's seconds a step."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    from benchmarks.scored import even_share
    from benchmarks.trl_peers import StepTimer, arguments, model_and_tokenizer, run

    lengths: list[int] = []

    def rewards(completions: list[str], completion_ids: list[list[int]], **_: Any) -> list[float]:
        lengths.append(sum(map(len, completion_ids)))
        return [even_share(completion) for completion in completions]

    model, tokenizer = model_and_tokenizer(models.folder(size))
    timer, batch = StepTimer(), PROMPTS * GROUP
    config = GRPOConfig(
        **arguments(settings, amp=amp, rate=RATE, steps=warm_up + steps),
        **generation(static=static),
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=batch // micro,
        num_generations=GROUP,
        max_completion_length=MAX_TOKENS,
    )
    asked = Dataset.from_list([{"prompt": framed(prompt)} for prompt in prompts()])
    run(GRPOTrainer(model, rewards, args=config, train_dataset=asked, processing_class=tokenizer, callbacks=[timer]))
    drawn = lengths[-steps:]
    return {"seconds": statistics.median(timer.seconds[warm_up:]), "mean_length": statistics.fmean(drawn) / batch}


def generation(*, static: bool, temperature: float = 1.0) -> dict[str, Any]:
    """GRPO's settings that both the step and the race to a reward use."""
    found: dict[str, Any] = {"beta": 0.0, "temperature": temperature, "loss_type": "dapo", "epsilon": 0.2}
    if static:
        found["cache_implementation"] = "static"  # TRL turns compilation off by itself
    return found


if __name__ == "__main__":
    main(ROW, measured)
