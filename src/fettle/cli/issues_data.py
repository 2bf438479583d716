"""``fettle issues benchmark`` and ``convert``: attempts at problems, and what recipes learn from them."""

import json
import math
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fettle.cli.train import Overrides
from fettle.errors import ConfigError, DataError

if TYPE_CHECKING:
    from fettle.issues.examples import Example
    from fettle.issues.instances import Instance
    from fettle.issues.learning_sets import Rows
    from fettle.issues.trajectories import IssueTrajectory

BENCHMARKS = Path("data/benchmarks")
ProblemsFile = Annotated[Path | None, typer.Option("--problems", help="Problems that attempts are of.")]


class Form(StrEnum):
    """What trajectories are turned into."""

    EXAMPLES = "examples"
    CONVERSATIONS = "conversations"
    EPISODES = "episodes"
    PREFERENCES = "preferences"
    PROBLEMS = "problems"
    TRAJECTORIES = "trajectories"


def benchmark(
    path: Annotated[Path, typer.Argument(help="Problems, as validate writes them.")],
    repository: Annotated[Path, typer.Option("--repository", help="The repository that they were mined from.")],
    id: Annotated[str | None, typer.Option("--id", help="Of the benchmark; by default the moment it is run.")] = None,
    replies: Annotated[
        Path | None, typer.Option(help="JSON Lines of instance_id and reply; by default the history's own solutions.")
    ] = None,
    benchmarks: Annotated[Path, typer.Option(help="Folder that holds the benchmarks.")] = BENCHMARKS,
) -> None:
    """Test an attempt at each problem in the sandbox, and write down what came of it."""
    import asyncio

    from fettle.compat.rllm import BenchmarkIntegration, get_default_config

    told = None if replies is None else _replies(replies)
    made = BenchmarkIntegration(get_default_config(), folder=benchmarks)
    result = asyncio.run(made.run_benchmark(path, repository, benchmark_id=id, replies=told))
    found = json.loads(result.read_text(encoding="utf-8"))
    print(f"{found['total_issues']:6} problems, {found['skipped_issues']} without a reply")
    print(f"{found['successful_issues']:6} solved, {found['failed_issues']} not: {result}")


def _replies(path: Path) -> dict[str, str]:
    """By the problems' ids."""
    from fettle.rows import rows

    found: dict[str, str] = {}
    for row in rows(str(path)):
        id = row.text("instance_id")
        if id in found:
            raise DataError(f"{row.place}: {id} has a reply already: leave one")
        found[id] = row.text("reply")
    return found


def convert(
    path: Annotated[Path, typer.Argument(help="trajectories_<id>.json, or a file of fettle collect.")],
    form: Annotated[Form, typer.Option("--to", help="What is written.")],
    out: Annotated[Path, typer.Option("--out", help="Where.")],
    overrides: Overrides = None,
    problems: ProblemsFile = None,
    heldout: Annotated[
        Path | None, typer.Option("--heldout", help="Hold some issues out, which are written here.")
    ] = None,
    share: Annotated[float, typer.Option(help="Of what is held out, between 0 and 1.")] = 0.2,
    seed: Annotated[int, typer.Option(min=0, help="Of what is held out.")] = 0,
) -> None:
    """Turn attempts at issues into what recipes learn from; min_steps=3 and the like choose among them."""
    from fettle.config.issues import Split
    from fettle.config.load import load_as
    from fettle.issues.instances import read_instances
    from fettle.issues.selection import Selection, augmented, parted, selected
    from fettle.tracking import write_atomically

    if not 0 < share < 1:
        raise ConfigError(f"--share is {share:g}, which leaves nothing on one side: give more than 0 and less than 1")
    known = read_instances(problems) if problems is not None else []
    wanted = load_as(Selection, None, overrides or ())
    kept, dropped = selected(_attempts(path, known), wanted)
    kept, added = augmented(kept, wanted.asked_by)
    sides = [kept] if heldout is None else parted(kept, Split(heldout=share, seed=seed), known)
    files = [path for path in (out, heldout) if path is not None]
    made = [_made(form, side, known) for side in sides]
    for to, one in zip(files, made, strict=True):
        if not one.count:
            why = "; ".join(f"{count} dropped: {why}" for why, count in (dropped + one.dropped).items())
            raise DataError(
                f"of {path} no {form.value} are left for {to} ({why or 'it holds none'}), and nothing is written: "
                f"add attempts that were tested, or {'choose fewer away' if heldout is None else 'give another --seed'}"
            )
    _tell(dropped)
    for way, count in added.items():
        print(f"{count:6} added: {way}")
    for to, one in zip(files, made, strict=True):
        _tell(one.dropped)
        write_atomically(to, one.text)
        print(f"{one.count:6} {form.value}: {to}")


def _tell(dropped: Counter[str]) -> None:
    for why, count in dropped.items():
        print(f"{count:6} dropped: {why}")


def _attempts(path: Path, known: "list[Instance]") -> "list[IssueTrajectory]":
    from fettle.issues.trajectories import of_episode, read_trajectories
    from fettle.rollouts.trajectories import recorded

    if path.suffix == ".jsonl":
        return [of_episode(each.trajectory, known) for each in recorded(path)]
    return read_trajectories(path)


@dataclass(frozen=True, slots=True)
class _Made:
    """A file: how many are in it, its text, and why there are no more."""

    count: int
    text: str
    dropped: Counter[str]


def _made(form: Form, side: "list[IssueTrajectory]", known: "list[Instance]") -> _Made:
    from fettle.issues import examples, instances, learning_sets
    from fettle.issues.trajectories import as_episode
    from fettle.rollouts.trajectories import line

    dropped: Counter[str] = Counter()
    if form is Form.TRAJECTORIES:
        text = b"".join(line(as_episode(each), episode=each.issue_id) for each in side).decode()
        return _Made(len(side), text, dropped)
    if form is Form.CONVERSATIONS:
        solved = [each for each in side if each.outcome is not None and each.outcome.resolved]
        dropped["not solved, and so not to be shown"] += len(side) - len(solved)
        side = solved
    made = examples.converted(side)
    dropped += made.dropped
    if form is Form.EXAMPLES:
        return _Made(len(made.examples), examples.written(made.examples), dropped)
    if form is Form.PROBLEMS:
        found = learning_sets.problems_of(made.examples, known)
        return _Made(len(found), instances.written(found), dropped)
    rows, more = _rows(form, made.examples)
    return _Made(len(rows), "".join(json.dumps(row) + "\n" for row in rows), dropped + more)


def _rows(form: Form, made: "list[Example]") -> "tuple[Rows, Counter[str]]":
    from fettle.issues.learning_sets import conversation_rows, episode_rows, preference_rows

    if form is Form.CONVERSATIONS:
        return conversation_rows(made, system="", min_reward=-math.inf)
    if form is Form.PREFERENCES:
        return preference_rows(made, system="")
    return episode_rows(made, system=""), Counter()
