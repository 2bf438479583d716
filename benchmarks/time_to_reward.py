"""Time to a reward: both sides from one warm checkpoint until they get nine of ten held-out sums right.

The same task, batch (16 x 8) and reward. Every few steps the clock stops, and 200 held-out sums are drawn once each at
temperature 1 and scored, by Fettle's own evaluation on both sides. The learning rate, and for TRL whether there is
bfloat16 autocast, is what gets there first on the first seed; then three seeds are run by each. TRL takes its batch as
one micro-batch and no static cache: of these the row ``grpo`` tries the alternatives, on a model of this size.
"""

import asyncio
import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import warm
from benchmarks.figures import spread
from benchmarks.harness import Outcome, Row, Settings, in_fresh_process, in_turn, main
from benchmarks.machine import Floor
from benchmarks.workload import GROUP, PROMPTS

ROW = Row(
    name="time_to_reward",
    work="time to 0.9 held-out reward on two-digit sums, from one warm checkpoint, 16 x 8, three seeds",
    peer="TRL GRPOTrainer, the better of two learning rates and of float32 and autocast",
    target=0.25,
    better="lower",
    unit="of its time",
)
GOAL, QUICK_GOAL = 0.9, 0.5
EVERY = 5
"""Steps between evaluations."""
MOST_STEPS = 250
RATES = (3e-4, 1e-3)
SEEDS = (0, 1, 2)


def measured(settings: Settings, floor: Floor) -> Outcome:
    """The row."""
    folder = warm.checkpoint()
    goal = QUICK_GOAL if settings.quick else GOAL
    rates = RATES[:1] if settings.quick else RATES
    amps = (False,) if settings.quick else (False, True)
    asked = {"folder": folder, "goal": goal}
    tried = {
        "ours": [_raced("ours", settings, **asked, rate=rate, seed=SEEDS[0]) for rate in rates],
        "peer": [_raced("peer", settings, **asked, rate=r, amp=amp, seed=SEEDS[0]) for r in rates for amp in amps],
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
        notes=[f"goal {goal}; the warm checkpoint earns {warm.accuracy(folder, temperature=1.0):.2f}"],
        further={"both reached it": all(run["reached"] for runs in found.values() for run in runs)},
    )


def _raced(side: str, settings: Settings, **how: Any) -> dict[str, Any]:
    """One run of one side, in a fresh process, with how it was run."""
    found = in_fresh_process(f"benchmarks.time_to_reward:{side}", settings, **how)
    return {**found, "how": {name: value for name, value in how.items() if name in ("rate", "amp")}}


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
        **common(settings, folder, steps=MOST_STEPS, rate=rate),
        "type": "rl",
        "name": "race",
        "seed": seed,
        "environments": [{"type": "jsonl", **warm.source(folder)}],
        "preset": "grpo",
        "loss": {"kl": None},  # as TRL is told: no reference
        "groups_per_step": PROMPTS,
        "group_size": GROUP,
        "sampling": {"max_tokens": warm.MAX_TOKENS},
        "evaluation": {"every": EVERY, "tasks": warm.HELDOUT},
    }
    carried_out(recipe, StepTimer(end.reached))
    return end.found


def peer(settings: Settings, *, folder: str, goal: float, rate: float, amp: bool, seed: int) -> dict[str, Any]:
    """TRL's race."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    from benchmarks.grpo import generation
    from benchmarks.models import framed
    from benchmarks.trl_peers import StepTimer, arguments, model_and_tokenizer, run

    def exact(completions: list[str], answer: list[str], **_: Any) -> list[float]:
        return [float(said == right) for said, right in zip(completions, answer, strict=True)]

    model, tokenizer = model_and_tokenizer(folder)
    end, batch = Goal(goal), PROMPTS * GROUP

    def scored(step: int, seconds: float) -> bool:
        return step % EVERY == 0 and end.reached(step, seconds, score(model, tokenizer, folder, seed=seed))

    config = GRPOConfig(
        **arguments(settings, amp=amp, rate=rate, steps=MOST_STEPS, seed=seed),
        **generation(static=False),
        per_device_train_batch_size=batch,
        num_generations=GROUP,
        max_completion_length=warm.MAX_TOKENS,
    )
    suite = warm.tasks(folder)
    shown = [suite.training_task(index) for index in range(PROMPTS * MOST_STEPS)]
    rows = [{"prompt": framed(task.prompt[0].content), "answer": task.data["answer"]} for task in shown]
    timer = StepTimer(scored)
    run(GRPOTrainer(model, exact, args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer,
                    callbacks=[timer]))  # fmt: skip
    return end.found


def score(model: Any, tokenizer: Any, folder: str, *, seed: int) -> float:
    """What a model earns on the held-out sums, by Fettle's own evaluation."""
    from fettle.chat import Template
    from fettle.cli.engines import engine_of
    from fettle.config import LocalEngine, SamplingParams
    from fettle.training.evaluation import evaluate

    async def evaluated(place: str) -> float:
        template = Template(tokenizer)
        ends = tuple(sorted(template.end_token_ids))
        async with engine_of(LocalEngine(device="cpu"), Path(place)) as engine:
            result = await evaluate(
                [warm.tasks(folder)],
                tasks=warm.HELDOUT,
                sampler=await engine.sampler(place),
                template=template,
                params=SamplingParams(max_tokens=warm.MAX_TOKENS, stop_token_ids=ends, seed=seed),
                seed=seed,
                samples=1,
            )
        return float(result.reward)

    with tempfile.TemporaryDirectory() as place:
        model.save_pretrained(place)
        tokenizer.save_pretrained(place)
        return asyncio.run(evaluated(place))


if __name__ == "__main__":
    main(ROW, measured)
