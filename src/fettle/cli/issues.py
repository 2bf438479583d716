"""``fettle issues``: problems from a project's own history, and what becomes of them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fettle.cli import issues_data, issues_train
from fettle.cli.train import Overrides

if TYPE_CHECKING:
    from fettle.issues.decisions import Decision
    from fettle.issues.instances import Instance

issues = typer.Typer(help="Make problems out of a project's history, and check them.", no_args_is_help=True)

issues.command("benchmark")(issues_data.benchmark)
issues.command("convert")(issues_data.convert)
issues.command("train")(issues_train.train)

OUT, TRAINING, HELDOUT = Path("instances.jsonl"), Path("train.jsonl"), Path("heldout.jsonl")
Repo = Annotated[Path, typer.Argument(help="The folder of a git repository.")]
Out = Annotated[Path, typer.Option("--out", help="Where the problems are written, in SWE-bench's format.")]


@issues.command("corpus")
def corpus(
    folder: Annotated[Path, typer.Argument(help="A new folder, for the repository and its issues.")],
    overrides: Overrides = None,
) -> None:
    """Make a repository in which mistakes were made, reported and mended, to try everything else on."""
    import asyncio

    from rich.console import Console
    from rich.progress import Progress

    from fettle.config.issues import Corpus
    from fettle.config.load import load_as
    from fettle.issues.corpus import flaws, write_corpus
    from fettle.sandbox import sandbox

    settings = load_as(Corpus, None, overrides or ())
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("mistakes", total=settings.problems)
        found = asyncio.run(flaws(sandbox(settings.sandbox), settings, told=lambda: progress.advance(task)))
    commits = write_corpus(folder, settings, found)
    tests = [len(flaw.right) + len(flaw.wrong) for flaw in found]
    print(f"{commits} commits and {len(found)} issues: {folder / 'repository'}, {folder / 'issues.json'}")
    print(f"{sum(tests)} tests, {min(tests)} to {max(tests)} a problem, {sum(len(flaw.wrong) for flaw in found)} fail")


@issues.command("mine")
def mine(
    repository: Repo,
    overrides: Overrides = None,
    export: Annotated[
        Path | None, typer.Option("--issues", help="A tracker's export: GitHub's, Gitee's or GitCode's, in JSON.")
    ] = None,
    out: Out = OUT,
) -> None:
    """Pair each change that mended something with the issue that asked for it. Nothing is fetched."""
    from rich.console import Console
    from rich.progress import Progress

    from fettle.config.issues import Mining
    from fettle.config.load import load_as
    from fettle.issues.exports import read_export
    from fettle.issues.git import Repository
    from fettle.issues.instances import written
    from fettle.issues.mining import DROPPED
    from fettle.issues.mining import mine as mined
    from fettle.issues.records import Tracker
    from fettle.tracking import write_atomically

    settings = load_as(Mining, None, overrides or ())
    tracker = read_export(export) if export is not None else Tracker()
    history = Repository(repository)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("commits", total=None)
        found = mined(history, tracker, settings, told=lambda count: progress.update(task, completed=count))
    write_atomically(out, written(found.instances))
    print(f"{found.commits:6} commits of the main line, {len(tracker.issues)} issues in the export")
    for why, count in found.dropped.most_common():
        print(f"{count:6} dropped: {DROPPED[why]}")
    linked = sum(not one.synthetic for one in found.instances)
    if (count := len(tracker.issues)) and all(one.number not in tracker.issues for one in found.instances):
        print(f"  none of the {count} issues in the export was linked to a problem: is it this project's?")
    print(f"{len(found.instances):6} problems, {linked} with an issue, {_tested(found.instances)} with tests: {out}")


def _tested(instances: "list[Instance]") -> int:
    return sum(bool(one.test_patch) for one in instances)


@issues.command("validate")
def validate(
    path: Annotated[Path, typer.Argument(help="Problems, as mine writes them.")],
    repository: Annotated[Path, typer.Option("--repository", help="The repository that they were mined from.")],
    overrides: Overrides = None,
    out: Out = Path("validated.jsonl"),
) -> None:
    """Run each problem's tests in the sandbox, and keep those whose tests fail before and pass after.

    What is decided stands at once in a file beside, OUT.part, from which the same command goes on.
    """
    import asyncio

    from fettle.config.issues import Validation
    from fettle.config.load import load_as
    from fettle.errors import DataError
    from fettle.issues.decisions import Decisions
    from fettle.issues.instances import read_instances, written
    from fettle.issues.validation import validated
    from fettle.sandbox import sandbox
    from fettle.tracking import write_atomically

    settings = load_as(Validation, None, overrides or ())
    instances = read_instances(path)
    decisions = Decisions(out.with_name(f"{out.name}.part"), repository, settings)
    before = sum(decisions.of(one) is not None for one in instances)
    if before:
        print(f"{before} of {len(instances)} problems were decided before: {decisions.path}")

    def told(instance: "Instance", decision: "Decision") -> None:
        decisions.add(instance, decision)
        kept = decision.instance
        tests = f"{len(kept.FAIL_TO_PASS)} tests tell, {len(kept.PASS_TO_PASS)} must go on passing"
        print(f"{kept.instance_id}: {f'dropped: {decision.why}' if decision.kind else tests}", flush=True)

    box = sandbox(settings.sandbox)
    found = asyncio.run(validated(instances, repository, box, settings, known=decisions.of, told=told))
    if not found.instances:
        [(kind, count), *_] = found.dropped.most_common()
        why = next(iter(found.reasons.values()))
        raise DataError(
            f"none of {len(instances)} problems can be told from its solution ({count}: {kind}; the first: {why}): "
            "see that this is their repository, and that their tests can be run here"
        )
    write_atomically(out, written(found.instances))
    decisions.remove()
    for why, count in found.dropped.most_common():
        print(f"{count:6} dropped: {why}")
    print(f"{len(found.instances):6} problems of {len(instances)} can be told from their solutions: {out}")


@issues.command("split")
def split(
    path: Annotated[Path, typer.Argument(help="Problems, as mine or validate writes them.")],
    overrides: Overrides = None,
    training: Annotated[Path, typer.Option("--train", help="Where those to train on are written.")] = TRAINING,
    heldout: Annotated[Path, typer.Option("--heldout", help="Where those held out are written.")] = HELDOUT,
) -> None:
    """Hold problems out, so that none of the others tells of them."""
    from fettle.config.issues import Split
    from fettle.config.load import load_as
    from fettle.issues.instances import read_instances, written
    from fettle.issues.splits import split as parted
    from fettle.tracking import write_atomically

    settings = load_as(Split, None, overrides or ())
    for part, to in zip(parted(read_instances(path), settings), (training, heldout), strict=True):
        write_atomically(to, written(part))
        print(f"{len(part):6} problems: {to}")


@issues.command("demonstrate")
def demonstrate(
    path: Annotated[Path, typer.Argument(help="Problems, as mine or validate writes them.")],
    repository: Annotated[Path, typer.Option("--repository", help="The repository that they were mined from.")],
    out: Out = Path("demonstrations.jsonl"),
    brief: Annotated[
        bool, typer.Option("--brief", help="For a small model: lines by number, and no system message.")
    ] = False,
    slips: Annotated[
        bool, typer.Option("--slips", help="With --brief: beside each, one that mends nothing, for practice to mend.")
    ] = False,
    heldout: Annotated[
        Path | None, typer.Option("--apart", help="Problems held out: what is like one of them is left out.")
    ] = None,
) -> None:
    """Write conversations in which each problem is asked and solved, for supervised fine-tuning."""
    import json

    from fettle.config.issues import CHANGES_IN_EDITS, Split
    from fettle.errors import ConfigError, DataError
    from fettle.issues.instances import read_instances
    from fettle.issues.questions import question, shown, slip, solution
    from fettle.issues.splits import apart
    from fettle.issues.trees import tree_of
    from fettle.tracking import write_atomically

    if slips and not brief:
        raise ConfigError("--slips are told by numbers of lines: give --brief as well")
    rows = []
    found = read_instances(path)
    kept = found if heldout is None else apart(found, read_instances(heldout), likeness=Split().likeness)
    if len(kept) < len(found):
        print(f"{len(found) - len(kept):6} left out: like one that is held out")
    for one in kept:
        base = tree_of(repository, one.base_commit, shown(one))
        try:
            replies = [solution(one, base, numbered=brief), *([slip(one, base)] if slips else [])]
        except DataError as error:
            print(f"left out: {error.message}")
            continue
        asked = {"user": question(one, base, numbered=brief)}
        asked = asked if brief else {"system": CHANGES_IN_EDITS, **asked}
        for reply in replies:
            told = {**asked, "assistant": reply}
            rows.append({"messages": [{"role": role, "content": text} for role, text in told.items()]})
    write_atomically(out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    print(f"{len(rows):6} conversations: {out}")


@issues.command("checkout")
def checkout(
    path: Annotated[Path, typer.Argument(help="Problems, as mine writes them.")],
    instance: Annotated[str, typer.Argument(help="The id of one.")],
    repository: Annotated[Path, typer.Option("--repository", help="The repository that they were mined from.")],
    to: Annotated[Path, typer.Option("--to", help="A new folder.")],
) -> None:
    """Write the files of a problem as they were before its solution, as a repository of one commit."""
    from fettle.errors import NotFoundError, did_you_mean
    from fettle.issues.instances import read_instances
    from fettle.issues.trees import tree_of

    found = {one.instance_id: one for one in read_instances(path)}
    if instance not in found:
        raise NotFoundError(f"{path} has no {instance!r}{did_you_mean(instance, found)}")
    tree_of(repository, found[instance].base_commit).write(to)
    print(f"{len(tree_of(repository, found[instance].base_commit).files)} files in {to}: one commit, and no other")
