"""What is learned from, written out as a run reads it: rows to be shown, and problems to learn on by reinforcement."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fettle.config import Issues
from fettle.errors import ConfigError, DataError, did_you_mean
from fettle.issues.examples import Example, ExampleAbout, read_examples
from fettle.issues.instances import Instance, read_instances
from fettle.issues.instances import written as instances_written
from fettle.issues.learning_sets import episode_rows, problems_of
from fettle.issues.questions import question, solution
from fettle.issues.records import type_of
from fettle.issues.splits import check_apart, clusters
from fettle.issues.trees import tree_of
from fettle.rows import rows
from fettle.tracking import write_atomically

LIKENESS: float = Issues.model_fields["likeness"].default
FOLDER, PROBLEMS = "repository_folder", "problems_path"
"""What our own lines of the data set tell besides: the repository of their problems, and where these are."""


@dataclass(frozen=True, slots=True)
class Problems:
    """Problems that tests decide, in two files."""

    path: Path
    heldout_path: Path
    repository: Path
    count: int
    heldout: int
    """Those that are not alike."""


@dataclass(frozen=True, slots=True)
class Material:
    """Rows to be shown, in two files, and the problems that they are of."""

    path: Path
    heldout_path: Path
    count: int
    heldout: int
    """Different questions that are held out."""
    weighted: bool
    """Whether some rows are worth more than others."""
    numbered: bool
    """Whether they show lines with their numbers, and tell edits by these."""
    problems: Problems | None
    """None where nothing tells what a new reply would be worth."""
    dropped: Counter[str]


@dataclass(frozen=True, slots=True)
class _Side:
    """One of the two files."""

    examples: list[Example]
    problems: list[Instance]
    repository: Path | None
    numbered: bool = False


def material(
    training: Path,
    heldout: Path,
    folder: Path,
    *,
    system: str,
    weights: Mapping[str, float] | None,
    repository: Path | None,
    numbered: bool,
) -> Material:
    """What two files hold, written into a folder: problems as ``validate`` writes them, or lines of the data set.

    Solutions of problems are shown by ``numbered`` lines, if so; lines of the data set are what they are.

    Raises:
        ConfigError: problems are given without their repository.
        DataError: a file cannot be used, or what is held out is told of by the rest.
    """
    dropped: Counter[str] = Counter()
    sides = [_side(path, repository, dropped, numbered=numbered) for path in (training, heldout)]
    shown, kept = (episode_rows(side.examples, system=system, weights=weights) for side in sides)
    if not shown or not kept:
        raise DataError(f"{training if not shown else heldout} holds nothing that can be shown: {_told(dropped)}")
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.jsonl" for name in ("shown", "shown_heldout")]
    weighted = len({row["reward"] for row in shown}) > 1
    for place, found in zip(paths, (shown, kept), strict=True):
        write_atomically(place, _lines(found, weighted))
    asked = {json.dumps(row["messages"][:-1]) for row in kept}
    path, heldout_path = paths
    by_number = all(side.numbered for side in sides)
    counts = len(shown), len(asked)
    return Material(path, heldout_path, *counts, weighted, by_number, _problems(sides, folder), dropped)


def _side(path: Path, repository: Path | None, dropped: Counter[str], *, numbered: bool) -> _Side:
    first = next(rows(str(path)), None)
    if first is None:
        raise DataError(f"{path} is empty: give problems, or lines of the data set")
    if "instance_id" in first.fields:
        if repository is None:
            raise ConfigError(f"{path} holds problems, and these are tested in their repository: give its folder")
        found = read_instances(path)
        return _Side(_solved(found, repository, dropped, numbered=numbered), found, repository, numbered)
    if "input_text" not in first.fields:
        hint = did_you_mean(next(iter(first.fields), ""), ("instance_id", "input_text"))
        raise DataError(f"{first.place}: neither a problem (instance_id) nor a line of the data set (input_text){hint}")
    examples = read_examples(path)
    return _Side(examples, *_of_examples(examples, path, repository))


def _of_examples(
    examples: Sequence[Example], path: Path, repository: Path | None
) -> tuple[list[Instance], Path | None]:
    """The problems that lines are of, where they tell."""
    extras = [each.metadata.model_extra or {} for each in examples]
    told = {(extra[PROBLEMS], extra[FOLDER]) for extra in extras if PROBLEMS in extra and FOLDER in extra}
    if not told:
        return [], repository
    if len(told) > 1:
        raise DataError(f"{path} is of {len(told)} sets of problems: give lines of one")
    [(problems, folder)] = told
    return problems_of(examples, read_instances(Path(str(problems)))), repository or Path(str(folder))


def _solved(found: Sequence[Instance], repository: Path, dropped: Counter[str], *, numbered: bool) -> list[Example]:
    """Each problem with the solution of its history, which its tests were seen to take."""
    examples = []
    for one in found:
        base = tree_of(repository, one.base_commit)
        try:
            asked, said = question(one, base, numbered=numbered), solution(one, base, numbered=numbered)
        except DataError:
            dropped["a solution that cannot be said in edits is not shown"] += 1
            continue
        kind = type_of(one.problem_statement.partition("\n")[0].lower())
        about = ExampleAbout(issue_id=one.instance_id, repository=one.repo, issue_type=kind, problem=one.instance_id)
        examples.append(Example(input_text=asked, output_text=said, reward=1.0, metadata=about))
    return examples


def _problems(sides: Sequence[_Side], folder: Path) -> Problems | None:
    training, heldout = sides
    if not training.problems or not heldout.problems or training.repository is None:
        return None
    if heldout.repository != training.repository:
        raise DataError(f"problems are of {training.repository} and of {heldout.repository}: give those of one")
    check_apart(training.problems, heldout.problems, likeness=LIKENESS)
    paths = [folder / f"{name}.jsonl" for name in ("problems", "problems_heldout")]
    for place, side in zip(paths, sides, strict=True):
        write_atomically(place, instances_written(side.problems))
    apart = len(clusters(heldout.problems, likeness=LIKENESS))
    path, heldout_path = paths
    return Problems(path, heldout_path, training.repository.resolve(), len(training.problems), apart)


def _lines(found: Sequence[Mapping[str, Any]], weighted: bool) -> str:
    """As data of type ``episodes`` where they weigh differently, and of type ``conversations`` where not."""
    told = found if weighted else [{"messages": row["messages"]} for row in found]
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in told)


def _told(dropped: Counter[str]) -> str:
    return "; ".join(f"{count} times {why}" for why, count in dropped.items()) or "it holds no line"
