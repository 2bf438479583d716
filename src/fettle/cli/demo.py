"""``fettle demo``: a small model learns arithmetic while you watch, from nothing, with no network."""

import importlib.util
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fettle.cli.invoked import FETTLE
from fettle.cli.recipes import shipped
from fettle.cli.train import Overrides, Runs, finish, new_run

if TYPE_CHECKING:
    from fettle.config import Pipeline
    from fettle.tracking import RunFolder
    from fettle.training import Summary

TRANSCRIPTS = 3


def demo(
    overrides: Overrides = None,
    seed: Annotated[int, typer.Option(help="Seed of the tasks, the weights and every draw.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="End with one line of JSON.")] = False,
    runs: Runs = Path("runs"),
) -> None:
    """Watch a small language model get better by reinforcement learning, in about two minutes."""
    folder, summaries = new_run(runs, recipe(seed, overrides or ()))
    if summaries[-1].interrupted:
        finish(folder, summaries)
    _show(folder, summaries)
    if as_json:
        print(json.dumps(_numbers(folder, summaries, seed)))


def recipe(seed: int, overrides: Sequence[str]) -> "Pipeline":
    """The demo's recipe under a seed; on the project's own sums where reasoning-gym is not installed."""
    from fettle.config import Pipeline
    from fettle.config.load import leaves, load_as

    path = shipped("demo.yaml" if importlib.util.find_spec("reasoning_gym") else "demo-arithmetic.yaml")
    seeded = [f"{key}={seed}" for key, _, name, _ in leaves(load_as(Pipeline, path)) if name == "seed"]
    return load_as(Pipeline, path, [*seeded, *overrides])


def _show(folder: "RunFolder", summaries: "Sequence[Summary]") -> None:
    from rich.console import Console
    from rich.table import Table

    learned = summaries[-1]
    table = Table(title="Held-out tasks, never trained on")
    for column in ("", "reward", "95 % interval"):
        table.add_column(column, justify="left" if not column else "right")
    for name, row in (("before", learned.first), ("after", learned.last)):
        interval = f"{row['heldout/reward_low']:.2f} to {row['heldout/reward_high']:.2f}"
        table.add_row(name, f"{row['heldout/reward']:.3f}", interval)
    console = Console(highlight=False)
    console.print()
    console.print(table)
    shown = sum(summary.seconds for summary in summaries[:-1])
    console.print(f"{shown:.0f} s of learning from worked solutions, up to before")
    console.print(
        f"{learned.seconds:.0f} s of reinforcement, up to after: {learned.steps} steps, {learned.tokens:,} tokens drawn"
    )
    for text in turned_right(learned.folder):
        console.print()
        console.print(text, markup=False, soft_wrap=True)
    console.print(
        f"\nThe run folder: {learned.folder}\n"
        f"  curves.png, report.md, transcripts/, metrics.jsonl\n"
        f"Try next:\n"
        f'  {FETTLE} sample {learned.folder} "State the final answer to the following arithmetic problem: 41 - 17 ="\n'
        f"  {FETTLE} eval {learned.folder}\n"
        f"  {FETTLE} demo stages.1.preset=dr_grpo stages.1.reduction.type=fixed_length\n"
        f"  {FETTLE} plan configs/qwen3-gsm8k-grpo.yaml",
        markup=False,
        soft_wrap=True,
    )


def turned_right(folder: Path) -> list[str]:
    """Held-out conversations that were wrong at the first evaluation and right at the last, for people to read."""
    files = sorted((folder / "evaluations").glob("step-*.jsonl"))
    first, last = (
        {row["task"]: row for row in map(json.loads, path.read_text().splitlines())} for path in (files[0], files[-1])
    )
    turned = [
        (row, last[task]) for task, row in first.items() if task in last and row["reward"] < 1 <= last[task]["reward"]
    ]
    return [_pair(before["messages"], after["messages"]) for before, after in turned[:TRANSCRIPTS]]


def _pair(before: Sequence[Mapping[str, str]], after: Sequence[Mapping[str, str]]) -> str:
    question = _last(before, "user")
    wrong, right = (_last(each, "assistant").replace("\n", "\n          ") for each in (before, after))
    return f"  {question}\n  before: {wrong}\n  after:  {right}"


def _last(messages: Sequence[Mapping[str, str]], role: str) -> str:
    return next(message["content"] for message in reversed(messages) if message["role"] == role)


def _numbers(folder: "RunFolder", summaries: "Sequence[Summary]", seed: int) -> dict[str, object]:
    learned = summaries[-1]
    return {
        "reward_before": learned.first["heldout/reward"],
        "reward_after": learned.last["heldout/reward"],
        "ci": [learned.last["heldout/reward_low"], learned.last["heldout/reward_high"]],
        "ci_before": [learned.first["heldout/reward_low"], learned.first["heldout/reward_high"]],
        "seconds": round(sum(summary.seconds for summary in summaries), 2),
        "steps": learned.steps,
        "tokens_per_s": round(learned.tokens / learned.seconds, 1),
        "run_dir": str(folder.path),
        "seed": seed,
    }
