"""Lines of the documented data set: what was asked, what was said, and what it was worth."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from fettle.errors import DataError
from fettle.issues.trajectories import IssueTrajectory, Recorded, asked, responses
from fettle.rows import Row, rows

SYSTEM = "You are a helpful AI assistant that solves software engineering issues."
"""What the documented data set begins with."""
Text = Annotated[str, Field(min_length=1)]


class ExampleAbout(Recorded):
    """Where a line comes from."""

    issue_id: str = ""
    issue_url: str = ""
    repository: str = ""
    steps_count: int = 0
    source: str = ""
    step_index: int | None = None
    """Of the step whose response is the line's."""
    issue_type: str = "general"
    system: str = ""
    """Beside the documented fields: what ``input_text`` begins with, before the issue."""
    problem: str = ""
    """Beside the documented fields: the id of the problem whose tests told what it was worth."""


class Example(Recorded):
    """One line: a response, in answer to everything that stood before it."""

    input_text: Text
    output_text: Text
    reward: Annotated[float, Field(allow_inf_nan=False)]
    """What came of the whole attempt; every response of one has the same."""
    metadata: ExampleAbout = ExampleAbout()


@dataclass(frozen=True, slots=True)
class Converted:
    """Lines, and why of some trajectories there are none."""

    examples: list[Example] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)


def converted(trajectories: Iterable[IssueTrajectory], *, system: str = SYSTEM) -> Converted:
    """A line for each response, with all that stood before it, the issue's body included, and its own outcome."""
    found = Converted()
    for trajectory in trajectories:
        said = responses(trajectory)
        if trajectory.outcome is None:
            found.dropped["nothing was tested, so that nothing is known of what it is worth"] += 1
        elif not said:
            found.dropped["nothing was said"] += 1
        else:
            found.examples.extend(_example(trajectory, at, trajectory.outcome.reward, system) for at in said)
    return found


def _example(trajectory: IssueTrajectory, at: int, reward: float, system: str) -> Example:
    about = ExampleAbout(
        issue_id=trajectory.issue_id,
        issue_url=trajectory.issue_url,
        repository=trajectory.repository,
        steps_count=len(trajectory.steps),
        source=trajectory.source,
        step_index=at,
        issue_type=trajectory.metadata.issue_type,
        system=system,
        problem=trajectory.outcome.problem if trajectory.outcome is not None else "",
    )
    before = asked(trajectory, at)
    return Example(
        input_text=f"{system}\n\n{before}" if system else before,
        output_text=trajectory.steps[at].response,
        reward=reward,
        metadata=about,
    )


def read_examples(path: Path) -> list[Example]:
    """Those of a file, in order.

    Raises:
        DataError: it cannot be read, or a line is something else, with the place.
    """
    found = [_checked(row) for row in rows(str(path))]
    if not found:
        raise DataError(f"{path} is empty: give one example a line")
    return found


def _checked(row: Row) -> Example:
    try:
        return Example.model_validate(row.fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the line"
        raise DataError(f"{row.place}: {where} cannot be used ({first['msg']})") from error


def written(examples: Sequence[Example]) -> str:
    """The lines of a file, which read back to equal examples."""
    return "".join(
        json.dumps(each.model_dump(mode="json", exclude_unset=True), ensure_ascii=False) + "\n" for each in examples
    )
