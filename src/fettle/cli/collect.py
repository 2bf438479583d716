"""``fettle collect``: let a model play, and keep what comes of it."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fettle.cli import waking
from fettle.cli.evaluate import Endpoint, KeyEnv
from fettle.cli.exits import FAILED, INTERRUPTED
from fettle.cli.train import Overrides

if TYPE_CHECKING:
    from fettle.rollouts.collection import Collection
    from fettle.rollouts.trajectories import Wanted
    from fettle.training.collecting import Outcome
    from fettle.types import Trajectory

World = Annotated[str, typer.Argument(help="A recipe, or an environment by its name: arithmetic, math, ...")]
Ending = Annotated[
    list[str] | None,
    typer.Option("--ending", help="Export only what ended so: finished, or the limit that ended it; may be repeated."),
]


def collect(
    world: World,
    overrides: Overrides = None,
    *,
    model: Annotated[str, typer.Option(help="A run folder, a model folder, or a hub name.")],
    out: Annotated[Path, typer.Option(help="The file; one that is there already is gone on with.")],
    endpoint: Endpoint = None,
    key_env: KeyEnv = None,
    tasks: Annotated[int, typer.Option(min=1, help="How many training tasks are played.")] = 100,
    samples: Annotated[int, typer.Option(min=1, help="How often each of them is played.")] = 1,
    temperature: Annotated[float | None, typer.Option(min=0, help="Of the replies; 0 is the likeliest.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Most tokens in a reply.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the draws.")] = None,
    messages: Annotated[Path | None, typer.Option(help="Also export conversations, as OpenAI has them.")] = None,
    episodes: Annotated[Path | None, typer.Option(help="Also export conversations with their rewards.")] = None,
    min_reward: Annotated[float | None, typer.Option(help="Export only what earned so much.")] = None,
    max_reward: Annotated[float | None, typer.Option(help="Export only what earned no more.")] = None,
    min_length: Annotated[int | None, typer.Option(help="Export only where so many tokens were drawn.")] = None,
    max_length: Annotated[int | None, typer.Option(help="Export only where no more tokens were drawn.")] = None,
    ending: Ending = None,
) -> None:
    """Let a model play, and keep every episode in a file, without loss; the same command goes on where it stopped."""
    from fettle.cli.worlds import Speaker, drawn, run_of
    from fettle.rollouts.trajectories import Wanted

    run = drawn(run_of(world, overrides or [], model=model), max_tokens=max_tokens, seed=seed)
    wanted = Wanted(min_reward, max_reward, min_length, max_length, _endings(ending))

    from fettle.cli import collected  # only now: torch takes seconds, and a slip should be told at once

    asked = collected.Asked(run, Speaker(model, endpoint, key_env), tasks, samples, temperature)
    collection = collected.opened(asked, out)
    interrupted = False
    try:
        with progress(asked.count, len(collection.done)) as told:
            waking.run(collected.collect_into(asked, collection, told))
    except KeyboardInterrupt:
        interrupted = True
    finally:
        collection.close()
        _tell(collection, asked.count)
    if interrupted:
        print("stopped; the same command goes on from here")
        raise typer.Exit(INTERRUPTED)
    _export(out, wanted, messages=messages, episodes=episodes)
    if not collection.done:
        raise typer.Exit(FAILED)


def _endings(given: list[str] | None) -> frozenset[str] | None:
    if not given:
        return None
    from typing import get_args

    from fettle.errors import ConfigError, did_you_mean
    from fettle.rollouts.trajectories import FINISHED
    from fettle.types import Ending as Limit

    known = [FINISHED, *filter(None, get_args(Limit))]
    for name in given:
        if name not in known:
            raise ConfigError(f"--ending {name} is none: use {', '.join(known)}{did_you_mean(name, known)}")
    return frozenset(given)


@contextmanager
def progress(total: int, done: int) -> "Iterator[Callable[[Outcome], None]]":
    """A bar on the terminal, if there is one: how many episodes, what they earn, how many failed."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from fettle.types import Failed

    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    earned, failed = [0.0, 0], 0
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        shown = bar.add_task("", total=total, completed=done)

        def told(outcome: "Outcome") -> None:
            nonlocal failed
            if isinstance(outcome, Failed):
                failed += 1
            else:
                earned[0] += sum(side.reward for side in outcome)
                earned[1] += len(outcome)
            mean = f"reward {earned[0] / earned[1]:.3f}" if earned[1] else ""
            bar.update(shown, advance=1, description=f"{mean}{f', {failed} failed' if failed else ''}")

        yield told


def _tell(collection: "Collection", count: int) -> None:
    done = len(collection.done)
    print(f"{done} of {max(count, done)} episodes are in {collection.path}")
    if collection.failures:
        first = collection.failures[0]
        print(
            f"{len(collection.failures)} failed, and are tried again by the same command; the first, "
            f"{first.episode}: {first.reason}"
        )


def _export(out: Path, wanted: "Wanted", *, messages: Path | None, episodes: Path | None) -> None:
    from fettle.rollouts.trajectories import conversation_row, episode_row

    for path, row in ((messages, conversation_row), (episodes, episode_row)):
        if path is not None:
            _write(path, out, wanted, row)


def _write(path: Path, out: Path, wanted: "Wanted", row_of: "Callable[[Trajectory], dict[str, Any] | None]") -> None:
    from fettle.rollouts.trajectories import recorded
    from fettle.tracking import write_atomically

    left: Counter[str] = Counter()
    rows = []
    for each in recorded(out):
        row = None
        reason = wanted.against(each.trajectory)
        if reason is None and (row := row_of(each.trajectory)) is None:
            reason = "hold a message that says nothing"
        if row is None:
            left[str(reason)] += 1
        else:
            rows.append(json.dumps(row) + "\n")
    write_atomically(path, "".join(rows))
    why = "".join(f"; {count} {reason}" for reason, count in left.items())
    print(f"{len(rows)} of {len(rows) + left.total()} are in {path}{why}")
