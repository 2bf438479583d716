"""Time to a reward: both sides from one warm checkpoint until they get nine of ten held-out sums right.

The same tasks, batch (16 x 8, in two optimizer steps), temperature and reward. Every few batches the clock stops, and
200 held-out sums are drawn once each and scored, by Fettle's own evaluation on both sides. The learning rate, and for
TRL whether there is bfloat16 autocast, is what gets there first on the worse of two seeds; then five seeds are run by
each. TRL takes half its batch as one micro-batch and no static cache: of these the row ``grpo`` tries the alternatives.
"""

import asyncio
import statistics
import tempfile
from collections.abc import Mapping
from typing import Any

from benchmarks import warm
from benchmarks.figures import spread
from benchmarks.harness import Outcome, Row, Settings, in_fresh_process, in_turn, main
from benchmarks.machine import Floor
from benchmarks.workload import GROUP, PROMPTS
from fettle.rewards import tagged_answer
from fettle.types import Task

ROW = Row(
    name="time_to_reward",
    work="time to 0.9 held-out reward on two-digit sums, from one warm checkpoint, 16 x 8, five seeds",
    peer="TRL GRPOTrainer, the better of two learning rates and of float32 and autocast",
    target=0.25,
    better="lower",
    unit="of its time",
)
GOAL, QUICK_GOAL = 0.9, 0.6
EVERY = 2
"""Batches between evaluations."""
MOST_BATCHES = 100
UPDATES = 2
"""Optimizer steps made from one batch."""
RATES = (1e-4, 2e-4)
SEEDS = (0, 1, 2, 3, 4)
TRIES = 2
"""Seeds on which each learning rate is tried."""


def measured(settings: Settings, floor: Floor) -> Outcome:
    """The row."""
    folder = warm.checkpoint()
    goal = QUICK_GOAL if settings.quick else GOAL
    rates = RATES[:1] if settings.quick else RATES
    amps = (False,) if settings.quick else (False, True)
    asked = {"folder": folder, "goal": goal}
    tried = {
        "ours": [_tried("ours", settings, **asked, rate=rate) for rate in rates],
        "peer": [_tried("peer", settings, **asked, rate=rate, amp=amp) for rate in rates for amp in amps],
    }
    best = {name: min(runs, key=_time)["how"] for name, runs in tried.items()}
    seeds = iter([seed for seed in SEEDS for _ in best])  # each repetition is a seed, run by both
    sides = {
        name: lambda name=name: _raced(name, settings, **{**asked, **best[name], "seed": next(seeds)}) for name in best
    }
    found = in_turn(sides, 1 if settings.quick else len(SEEDS))
    ours, peer = (_side(found[name], tried[name], best[name]) for name in ("ours", "peer"))
    return Outcome(
        ours["seconds"]["median"] / peer["seconds"]["median"],
        ours,
        peer,
        notes=[f"goal {goal}; the warm checkpoint earns {asyncio.run(warm.accuracy(folder)):.2f}"],
        further={"both reached it": all(run["reached"] for runs in found.values() for run in runs)},
    )


def _raced(side: str, settings: Settings, **how: Any) -> dict[str, Any]:
    """One run of one side, in a fresh process, with how it was run."""
    found = in_fresh_process(f"benchmarks.time_to_reward:{side}", settings, **how)
    return {**found, "how": {name: value for name, value in how.items() if name in ("rate", "amp")}}


def _tried(side: str, settings: Settings, **how: Any) -> dict[str, Any]:
    """The slower of two races, so that no lucky one chooses."""
    return max((_raced(side, settings, **how, seed=seed) for seed in SEEDS[:TRIES]), key=_time)


def _time(run: Mapping[str, Any]) -> float:
    return float(run["seconds"]) if run["reached"] else float("inf")


def _side(runs: list[dict[str, Any]], tried: list[dict[str, Any]], best: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "seconds": spread([run["seconds"] for run in runs]),
        "each": [run["seconds"] for run in runs],
        "steps": statistics.median(run["steps"] for run in runs),
        "chosen": dict(best),
        "tried": [{**run["how"], "seconds": run["seconds"], "reached": run["reached"]} for run in tried],
    }


class Goal:
    """When a run has got there: the first evaluation that earned the goal, or the last."""

    def __init__(self, goal: float) -> None:
        self._goal = goal
        self.found: dict[str, Any] = {}

    def reached(self, step: int, seconds: float, score: float) -> bool:
        """Whether to stop."""
        self.found = {"seconds": seconds, "steps": step, "score": score, "reached": score >= self._goal}
        return bool(self.found["reached"])


def ours(settings: Settings, *, folder: str, goal: float, rate: float, seed: int) -> dict[str, Any]:
    """Fettle's race."""
    from benchmarks.recipes import StepTimer, carried_out, common

    end = Goal(goal)
    recipe = {
        **common(settings, folder, steps=MOST_BATCHES, rate=rate),
        "type": "rl",
        "name": "race",
        "seed": seed,
        "environments": [warm.SUMS],
        "preset": "grpo",
        "loss": {"kl": None},  # as TRL is told: no reference, and each token counts the same
        "reduction": {"type": "token_mean"},
        "groups_per_step": PROMPTS,
        "group_size": GROUP,
        "minibatches": UPDATES,
        "sampling": {"max_tokens": warm.MAX_TOKENS, "temperature": warm.TEMPERATURE},
        "evaluation": {"every": EVERY, "tasks": warm.HELDOUT, "temperature": warm.TEMPERATURE},
    }
    carried_out(recipe, StepTimer(end.reached))
    return end.found


def peer(settings: Settings, *, folder: str, goal: float, rate: float, amp: bool, seed: int) -> dict[str, Any]:
    """TRL's race."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    from benchmarks.grpo import generation
    from benchmarks.trl_peers import StepTimer, arguments, model_and_tokenizer, run

    def exact(completions: list[str], answer: list[str], **_: Any) -> list[float]:
        return [float(tagged_answer(said) == right) for said, right in zip(completions, answer, strict=True)]

    model, tokenizer = model_and_tokenizer(folder)
    end = Goal(goal)

    def scored(step: int, seconds: float) -> bool:
        batches, within = divmod(step, UPDATES)
        return (
            within == 0 and batches % EVERY == 0 and end.reached(batches, seconds, score(model, tokenizer, seed=seed))
        )

    config = GRPOConfig(
        **arguments(settings, amp=amp, rate=rate, steps=MOST_BATCHES * UPDATES, seed=seed),
        **generation(static=False, temperature=warm.TEMPERATURE),
        per_device_train_batch_size=PROMPTS * GROUP // UPDATES,
        steps_per_generation=UPDATES,
        num_generations=GROUP,
        max_completion_length=warm.MAX_TOKENS,
    )
    suite = warm.tasks()
    shown = [suite.training_task(index) for index in range(PROMPTS * MOST_BATCHES)]
    rows = [{"prompt": _written(tokenizer, task), "answer": str(task.data["answer"])} for task in shown]
    timer = StepTimer(scored)
    run(GRPOTrainer(model, exact, args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer,
                    callbacks=[timer]))  # fmt: skip
    return end.found


def _written(tokenizer: Any, task: Task) -> str:
    asked = [{"role": message.role, "content": message.content} for message in task.prompt]
    return str(tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True))


def score(model: Any, tokenizer: Any, *, seed: int) -> float:
    """What a model earns on the held-out sums."""
    with tempfile.TemporaryDirectory() as place:
        model.save_pretrained(place)
        tokenizer.save_pretrained(place)
        return asyncio.run(warm.accuracy(place, seed=seed))


if __name__ == "__main__":
    main(ROW, measured)
