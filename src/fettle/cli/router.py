"""``fettle router``: train the routing policy, and hold it to evidence."""

import hashlib
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fettle.cli.exits import FAILED, SWITCHED_OFF
from fettle.cli.invoked import FETTLE
from fettle.cli.recipes import shipped
from fettle.cli.router_autopilot import autopilot
from fettle.cli.routing import promote, rollback, route, status

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fettle.config.router import RouterConfig
    from fettle.router.artifacts import RunFolder
    from fettle.router.evaluation import Evaluation
    from fettle.router.training import Trained

router = typer.Typer(help="Train and use the policy that chooses how agents work together.", no_args_is_help=True)

Config = Annotated[Path | None, typer.Option("--config", help="Settings; the shipped ones, which are off, otherwise.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="Settings laid over the file, as a.b=value.")]


@router.command("train")
def train(
    config: Config = None,
    updates: Annotated[int | None, typer.Option(help="Rollouts learned from; rllm.trainer.updates.")] = None,
    seed: Annotated[int | None, typer.Option(help="rllm.trainer.seed.")] = None,
    episode_length: Annotated[int | None, typer.Option(help="rllm.trainer.episode_length.")] = None,
    overrides: Overrides = None,
) -> None:
    """Train in a simulator, where the settings switch that on; else say what keeps it off, and end with 3."""
    from fettle.config.load import load_as
    from fettle.config.router import RouterConfig, switched_off

    path = config or shipped("policy/rllm.yaml")
    flags = {"updates": updates, "seed": seed, "episode_length": episode_length}
    given = [f"rllm.trainer.{name}={value}" for name, value in flags.items() if value is not None]
    settings = load_as(RouterConfig, path, [*(overrides or ()), *given])
    off = switched_off(settings)
    if off:
        switches = " ".join(f"{name}=true" for name in off)
        are = "is false" if len(off) == 1 else "are false"
        typer.echo(
            f"fettle: nothing was trained: {' and '.join(off)} {are} in {path}; to train, set "
            f"{'it' if len(off) == 1 else 'them'} to true there, or say so here: "
            f"{FETTLE} router train --config {shlex.quote(str(path))} {switches}",
            err=True,
        )
        raise typer.Exit(SWITCHED_OFF)
    _train(settings, path)


def _train(settings: "RouterConfig", path: Path) -> None:
    import torch

    from fettle.router.artifacts import RunFolder
    from fettle.router.observability import observed
    from fettle.router.training import Row, check
    from fettle.router.training import train as trained_by

    torch.set_num_threads(1)  # the tensors are too small to share out, and so the numbers hang on no machine's count
    check(settings)
    began = time.perf_counter()
    with observed(settings) as told:
        keeper = RunFolder(settings, path) if settings.rllm.experiment.enabled else None

        def tell(row: Row) -> None:
            print(
                f"Update {row['update']:.0f} | reward={row['mean_reward']:.4f} policy_loss={row['policy_loss']:.4f} "
                f"value_loss={row['value_loss']:.4f} entropy={row['entropy']:.4f}",
                flush=True,
            )
            told.row(row)

        trained = trained_by(settings, keeper, tell, told.spans)
        if trained.stopped is not None:
            told.stopped(trained.stopped)
    print(f"{trained.updates} updates in {time.perf_counter() - began:.1f} s")
    found = None
    if settings.rllm.evaluation.enabled and trained.stopped is None:
        found = _held_out(settings, trained, keeper)
    if keeper is not None:
        print(f"what it left: {keeper.path} (simulated: every reward comes from a simulator)")
        for line in _tree(keeper.path):
            print(line)
    wrong = _wrong(trained, found)
    if wrong is not None:
        typer.echo(f"fettle: {wrong}", err=True)
        raise typer.Exit(FAILED)


def _held_out(settings: "RouterConfig", trained: "Trained", keeper: "RunFolder | None") -> "Evaluation":
    """Evaluated as ``rllm.evaluation`` says, and told of."""
    from fettle.router.artifacts import described
    from fettle.router.evaluation import evaluate as evaluated
    from fettle.router.evaluation import write_evaluation
    from fettle.router.files import arrays_as_bytes
    from fettle.router.policy import RouterPolicy

    asked = settings.rllm.evaluation
    sha256 = hashlib.sha256(arrays_as_bytes(trained.policy)).hexdigest()
    metadata = {**described(settings, config_path="", updates=trained.updates), "policy_sha256": sha256}
    policy = RouterPolicy(trained.policy, metadata)
    found = evaluated(policy, seeds=asked.seeds, episodes=asked.episodes)
    if keeper is not None:
        write_evaluation(found, keeper.path)
    _print(["policy"], [found])
    return found


def _wrong(trained: "Trained", found: "Evaluation | None") -> str | None:
    """Why a run has failed, if it has."""
    if trained.stopped is not None:
        return f"{trained.stopped}; the policy is that after {trained.updates} updates"
    if found is not None and found.worse_than_constant:
        best = found.best_constant
        return (
            f"the policy earns {found.policy.mean:.3f} a decision on held-out seeds, and {best.name} alone "
            f"{best.mean:.3f}: train it for longer, or use that mode"
        )
    return None


def _tree(folder: Path) -> "Iterator[str]":
    """The files in a folder and in those below it, with their sizes."""
    for path in sorted(folder.rglob("*")):
        indent = "  " * len(path.relative_to(folder).parts)
        yield f"{indent}{path.name}/" if path.is_dir() else f"{indent}{path.name:<24}{path.stat().st_size:>10,} bytes"


@router.command("evaluate")
def evaluate(
    runs: Annotated[list[Path], typer.Argument(help="Folders that runs left; each is held to the same seeds.")],
    seeds: Annotated[int, typer.Option(min=2, help="Held-out seeds.")] = 10,
    episodes: Annotated[int, typer.Option(min=1, help="Episodes on each.")] = 256,
    figure: Annotated[Path | None, typer.Option(help="Draw it here; else beside the first run's policy.")] = None,
) -> None:
    """Play held-out seeds: trained policies beside every fixed mode, chance, two bandits and the oracle."""
    from fettle.router.evaluation import evaluate as evaluated
    from fettle.router.evaluation import write_evaluation
    from fettle.router.figures import draw
    from fettle.router.files import FIGURE
    from fettle.router.policy import load_policy

    policies = [load_policy(run) for run in runs]
    found = [evaluated(policy, seeds=seeds, episodes=episodes) for policy in policies]
    for run, evaluation in zip(runs, found, strict=True):
        write_evaluation(evaluation, run)
    _print([str(run) for run in runs], found)
    place = figure or runs[0] / FIGURE
    draw(found, place)
    print(f"drawn in {place}")


@router.command("replay")
def replay(
    log: Annotated[Path, typer.Argument(help="JSONL: observation, mode, propensity, reward.")],
    run: Annotated[Path, typer.Argument(help="A folder that a run left.")],
) -> None:
    """Estimate from logged decisions what a trained policy's likeliest modes would have earned in their place."""
    from fettle.router.policy import load_policy
    from fettle.router.replay import effective_sample_size, estimates, likeliest, read_log, within_reach

    policy = load_policy(run)
    logged = read_log(log, features=len(policy.metadata["features"]))
    for number, why in logged.malformed:
        typer.echo(f"fettle: {log}:{number}: {why}: not counted", err=True)
    probabilities = likeliest(within_reach(logged, policy.probabilities(logged.observations)))
    found = estimates(logged, probabilities)
    worth = effective_sample_size(logged, probabilities)
    print(f"{len(logged.rewards)} decisions, worth {worth:.0f} to this policy; {len(logged.malformed)} lines were none")
    print("  the policy is simulated: it learned in a simulator; the rewards are the log's")
    print(f"  {'logged':<16}{logged.rewards.mean():8.4f}")
    for name, each in found.items():
        print(f"  {name:<16}{each.mean:8.4f}   95 % [{each.low:.4f}, {each.high:.4f}]")


router.command("promote")(promote)
router.command("rollback")(rollback)
router.command("status")(status)
router.command("route")(route)
router.command("autopilot")(autopilot)


def _print(names: "Sequence[str]", evaluations: "Sequence[Evaluation]") -> None:
    """A line for everyone who chose, best first, and what the policy beats."""
    for name, evaluation in zip(names, evaluations, strict=True):
        print(
            f"{name} (simulated): mean reward of a decision, {evaluation.seeds} held-out seeds, "
            f"{evaluation.decisions} decisions"
        )
        for each in sorted((*evaluation.others, evaluation.policy), key=lambda each: -each.mean):
            print(f"  {each.name:<16}{each.mean:8.4f}   95 % [{each.low:.4f}, {each.high:.4f}]")
        for rival, margin in evaluation.margins.items():
            verdict = "beats" if margin.low > 0 else "does not beat"
            overlap = "do not overlap" if margin.apart else "overlap"
            print(
                f"  {verdict} {rival}: {margin.mean:+.4f} a decision in the same episodes, "
                f"95 % [{margin.low:+.4f}, {margin.high:+.4f}]; the two intervals above {overlap}"
            )
