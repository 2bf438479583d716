"""Which trajectories are learned from: by length, kind, repository and outcome; and splits of them."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import Field

from fettle.config.base import Frozen
from fettle.config.issues import Split
from fettle.issues.instances import Instance
from fettle.issues.splits import split
from fettle.issues.trajectories import IssueTrajectory, Kind, statement

Count = Annotated[int, Field(ge=1)]
Way = Literal["title", "body"]

NOTHING = "diff --git a/nothing b/nothing\n"
"""A patch that changes nothing, for what is told apart by its words alone."""


class Selection(Frozen):
    """Which trajectories are kept; what is null is not looked at."""

    min_steps: Count = 1
    """Steps, at least."""
    max_steps: Count | None = None
    """Steps, at most."""
    issue_types: tuple[Kind, ...] = ()
    """Kinds of issues; none: all."""
    repositories: tuple[str, ...] = ()
    """Their names; none: all."""
    min_reward: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """What came of it, at least; what was never tested came to nothing."""
    asked_by: tuple[Way, ...] = ()
    """Ways in which each issue is asked besides: by its ``title`` alone, by its ``body`` alone."""


REASONS: Mapping[str, Callable[[IssueTrajectory, Selection], bool]] = MappingProxyType(
    {
        "fewer steps than min_steps": lambda one, wanted: len(one.steps) < wanted.min_steps,
        "more steps than max_steps": lambda one, wanted: len(one.steps) > (wanted.max_steps or len(one.steps)),
        "of another kind than issue_types": lambda one, wanted: (
            bool(wanted.issue_types) and one.metadata.issue_type not in wanted.issue_types
        ),
        "of another repository": lambda one, wanted: (
            bool(wanted.repositories) and one.repository not in wanted.repositories
        ),
        "earned less than min_reward, or nothing was tested": lambda one, wanted: (
            wanted.min_reward is not None and (one.outcome is None or one.outcome.reward < wanted.min_reward)
        ),
    }
)
"""Why one is dropped, in the order in which it is asked."""


def selected(trajectories: Iterable[IssueTrajectory], wanted: Selection) -> tuple[list[IssueTrajectory], Counter[str]]:
    """Those that are kept, in order, and how many were dropped for which reason."""
    kept: list[IssueTrajectory] = []
    dropped: Counter[str] = Counter()
    for one in trajectories:
        why = next((reason for reason, holds in REASONS.items() if holds(one, wanted)), None)
        if why is None:
            kept.append(one)
        else:
            dropped[why] += 1
    return kept, dropped


def augmented(
    trajectories: Iterable[IssueTrajectory], ways: Sequence[Way]
) -> tuple[list[IssueTrajectory], Counter[str]]:
    """Each trajectory, and after it the same steps with less said of the issue; how many were added in which way.

    What somebody did is never changed, left out or put in another order: what would have come of that, nobody knows. An
    issue that lacks one of the two, or whose first observation tells it whole, has one way of being asked.
    """
    found: list[IssueTrajectory] = []
    added: Counter[str] = Counter()
    for one in trajectories:
        found.append(one)
        said = {"title": one.metadata.issue_title.strip(), "body": one.metadata.issue_body.strip()}
        whole = all(said.values()) and not any(text in one.steps[0].observation for text in said.values())
        for way in ways if whole else ():
            left = {f"issue_{name}": "" for name in said if name != way}
            found.append(one.model_copy(update={"metadata": one.metadata.model_copy(update=left)}))
            added[f"asked by its {way} alone"] += 1
    return found, added


def parted(
    trajectories: Sequence[IssueTrajectory], settings: Split, problems: Sequence[Instance] = ()
) -> tuple[list[IssueTrajectory], list[IssueTrajectory]]:
    """Those to train on, and those held out, as ``splits.split`` parts problems: all of one issue are on one side.

    ``problems`` tell more of what is alike than the words of issues; whoever is none of them goes by its words.

    Raises:
        DataError: one side would be empty, or one tells of the other.
    """
    known = {one.instance_id: one for one in problems}
    marks = {one.issue_id: known.get(_problem(one)) or _of_words(one) for one in trajectories}
    apart = {one.instance_id: one for one in marks.values()}
    held = {one.instance_id for one in split(list(apart.values()), settings)[1]}
    sides: tuple[list[IssueTrajectory], list[IssueTrajectory]] = ([], [])
    for one in trajectories:
        sides[marks[one.issue_id].instance_id in held].append(one)
    return sides


def _problem(trajectory: IssueTrajectory) -> str:
    return trajectory.outcome.problem if trajectory.outcome is not None else ""


def _of_words(trajectory: IssueTrajectory) -> Instance:
    return Instance(
        instance_id=trajectory.issue_id,
        repo=trajectory.repository or "unknown",
        base_commit="",
        patch=NOTHING,
        problem_statement=statement(trajectory) or trajectory.issue_id,
        created_at=trajectory.metadata.issue_created_at or trajectory.created_at,
    )
