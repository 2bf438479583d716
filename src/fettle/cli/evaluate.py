"""``fettle eval`` and ``fettle sample``: score what a run left, or talk to it."""

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fettle.cli.train import Overrides
from fettle.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fettle.config import RLRun

Model = Annotated[str, typer.Argument(help="A run folder, a model folder, or a hub name.")]


def evaluate(
    model: Model,
    overrides: Overrides = None,
    recipe: Annotated[Path | None, typer.Option(help="The recipe whose held-out tasks are used.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON.")] = False,
) -> None:
    """Score a run or a model on held-out tasks."""
    run = _recipe_of(model, recipe, overrides or [])

    from fettle.cli import models  # only now: torch takes seconds, and a slip in a recipe should be told at once

    result = asyncio.run(models.evaluation(run, models.weights_of(model)))
    if as_json:
        print(json.dumps(result.row))
        return
    tasks = result.row["heldout/tasks"]
    print(
        f"reward {result.reward:.3f} on {tasks:.0f} held-out tasks, 95 % interval {result.low:.3f} to {result.high:.3f}"
    )
    for name, score in result.by_suite.items() if len(result.by_suite) > 1 else ():
        print(f"  {name}: {score:.3f}")
    if result.pass_at:
        print("  " + ", ".join(f"pass@{k} {share:.3f}" for k, share in result.pass_at.items()))
    print(f"  {_told(result.row)}")
    if result.failures:
        print(f"  {len(result.failures)} episodes failed; the first: {result.failures[0].reason}")


def sample(
    model: Model,
    prompt: Annotated[str, typer.Argument(help="What the user says.")],
    system: Annotated[str | None, typer.Option(help="A system message before it; a run's own by default.")] = None,
    n: Annotated[int, typer.Option("-n", min=1, help="How many replies.")] = 1,
    max_tokens: Annotated[int, typer.Option(min=1, help="Most tokens in a reply.")] = 256,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 takes the likeliest token.")] = 1.0,
    top_p: Annotated[float, typer.Option(min=0.0, max=1.0, help="Nucleus of the distribution.")] = 1.0,
    top_k: Annotated[int, typer.Option(min=0, help="Only the k likeliest tokens; 0 is no limit.")] = 0,
    seed: Annotated[int, typer.Option(help="Seed of the draws.")] = 0,
) -> None:
    """Let a run or a model reply to a prompt."""
    if top_p == 0.0:
        raise ConfigError("--top-p is 0, which leaves nothing to draw from: use a number above 0, at most 1")

    from fettle.cli import models
    from fettle.config import SamplingParams

    params = SamplingParams(max_tokens=max_tokens, temperature=temperature, top_p=top_p, top_k=top_k, seed=seed)
    if system is None:
        system = models.system_of(model)
    replies = asyncio.run(models.replies(models.weights_of(model), prompt, system=system, n=n, params=params))
    print("\n---\n".join(replies))


def _told(row: "Mapping[str, float]") -> str:
    """What replies are like."""
    shares = [f"distinct-{n} {row[f'heldout/distinct_{n}']:.3f}" for n in (1, 2) if f"heldout/distinct_{n}" in row]
    return ", ".join([f"{row['heldout/tokens_mean']:.1f} tokens a reply", *shares])


def _recipe_of(model: str, recipe: Path | None, overrides: list[str]) -> "RLRun":
    from fettle.config import Pipeline, RewardModelRun, RLRun
    from fettle.config.load import load

    path = recipe or Path(model) / "config.yaml"
    if recipe is None and not path.is_file():
        raise ConfigError(f"{model} is no run folder, so it names no tasks: say which with --recipe RECIPE")
    config = load(path, overrides)
    last = config.stages[-1] if isinstance(config, Pipeline) else config
    if isinstance(last, RewardModelRun) and recipe is None:
        folder = Path(model) / last.name if isinstance(config, Pipeline) else Path(model)
        raise ConfigError(
            f"{folder} is a reward model, which scores replies and writes none: "
            f"its held-out accuracy stands in {folder / 'report.md'}"
        )
    if isinstance(last, RewardModelRun):
        raise ConfigError(f"{path} ends with a reward model, which has no tasks to score: give a recipe of type rl")
    if not isinstance(last, RLRun):
        raise ConfigError(f"{path} ends with supervised learning, which has no tasks to score: give --recipe RECIPE")
    return last
