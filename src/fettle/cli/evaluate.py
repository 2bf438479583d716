"""``fettle eval`` and ``fettle sample``: score a model, or talk to it."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fettle.cli import waking
from fettle.cli.inspect import print_columns
from fettle.cli.train import Overrides
from fettle.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fettle.config import RLRun
    from fettle.training import Evaluation

Model = Annotated[str, typer.Argument(help="A run folder, a model folder, or a hub name.")]
Endpoint = Annotated[
    str | None, typer.Option(help="An OpenAI-compatible endpoint, where the model is: http://HOST/v1.")
]
KeyEnv = Annotated[str | None, typer.Option(help="Environment variable that holds the endpoint's key.")]


def evaluate(
    model: Model,
    overrides: Overrides = None,
    recipe: Annotated[Path | None, typer.Option(help="The recipe whose held-out tasks are used.")] = None,
    environment: Annotated[
        str | None, typer.Option(help="An environment by its name, in the place of a recipe; settings are then its.")
    ] = None,
    endpoint: Endpoint = None,
    key_env: KeyEnv = None,
    against: Annotated[
        str | None,
        typer.Option(help="Who plays the other side of games; a run's own start by default. A run folder, or a model."),
    ] = None,
    tasks: Annotated[int | None, typer.Option(min=1, help="How many held-out tasks; 200 of an environment.")] = None,
    samples: Annotated[int | None, typer.Option(min=1, help="Replies to each of them; pass@k is told of k.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, help="Of the replies; 0 is the likeliest.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Most tokens in a reply.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the draws.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON.")] = False,
) -> None:
    """Score a run, a model or an endpoint on held-out tasks."""
    from fettle.cli.worlds import Speaker, drawn, scored

    run = scored(
        drawn(_asked(model, recipe, environment, overrides or []), max_tokens=max_tokens, seed=seed),
        tasks=tasks,
        samples=samples,
        temperature=temperature,
    )

    from fettle.cli import evaluated  # only now: torch takes seconds, and a slip should be told at once

    result, played = waking.run(evaluated.evaluation(run, Speaker(model, endpoint, key_env), against))
    row = evaluated.row_of(result)
    if as_json:
        print(json.dumps(row))
        if played:
            print(played, file=sys.stderr)
        return
    count = row["heldout/tasks"]
    print(
        f"reward {result.reward:.3f} on {count:.0f} held-out tasks, 95 % interval {result.low:.3f} to {result.high:.3f}"
    )
    for told in filter(None, (_told(row), played)):
        print(f"  {told}")
    if len(lines := _table(result)) > 2:
        print_columns(lines)
    if result.failures:
        print(f"  {len(result.failures)} episodes failed; the first: {result.failures[0].reason}")


def _table(result: "Evaluation") -> list[tuple[str, ...]]:
    """What was measured, with its interval: of all tasks, and of each environment where there are several."""
    measured = [("reward", result.reward, (result.low, result.high))]
    if len(result.by_suite) > 1:
        measured += [(f"reward of {name}", mean, result.intervals[name]) for name, mean in result.by_suite.items()]
    measured += [(f"pass@{k}", share, result.pass_intervals[k]) for k, share in result.pass_at.items()]
    measured += [
        ("win rate" + (f" of {name}" if name else ""), share, result.win_intervals[name])
        for name, share in result.win_rates.items()
    ]
    rows = [(name, f"{mean:.3f}", f"{low:.3f} to {high:.3f}") for name, mean, (low, high) in measured]
    return [("measure", "mean", "95 % interval"), *rows]


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
    replies = waking.run(models.replies(models.weights_of(model), prompt, system=system, n=n, params=params))
    print("\n---\n".join(replies))


def _told(row: "Mapping[str, float]") -> str:
    """What replies are like, as far as their tokens are known."""
    lengths = [f"{row['heldout/tokens_mean']:.1f} tokens a reply"] if "heldout/tokens_mean" in row else []
    shares = [f"distinct-{n} {row[f'heldout/distinct_{n}']:.3f}" for n in (1, 2) if f"heldout/distinct_{n}" in row]
    return ", ".join([*lengths, *shares])


def _asked(model: str, recipe: Path | None, environment: str | None, overrides: list[str]) -> "RLRun":
    from fettle.cli.worlds import is_recipe, last_run, run_of

    if environment is not None and recipe is not None:
        raise ConfigError("--recipe and --environment both say which tasks: give one of them")
    if environment is not None:
        if is_recipe(environment):
            raise ConfigError(f"--environment is {environment}, a file: give it as --recipe")
        return run_of(environment, overrides, model=model)
    path = recipe or Path(model) / "config.yaml"
    if recipe is None:
        _check_names_tasks(model, path)
    return last_run(path, overrides)


def _check_names_tasks(model: str, path: Path) -> None:
    from fettle.config import Pipeline, RewardModelRun
    from fettle.config.load import load

    if not path.is_file():
        raise ConfigError(
            f"{model} is no run folder, so it names no tasks: say which with --recipe RECIPE or --environment NAME"
        )
    config = load(path)
    last = config.stages[-1] if isinstance(config, Pipeline) else config
    if isinstance(last, RewardModelRun):
        folder = Path(model) / last.name if isinstance(config, Pipeline) else Path(model)
        raise ConfigError(
            f"{folder} is a reward model, which scores replies and writes none: "
            f"its held-out accuracy stands in {folder / 'report.md'}"
        )
