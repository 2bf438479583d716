"""How somebody went about an issue, step by step, in the documented form: ``trajectories_<id>.json``."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fettle.errors import DataError
from fettle.issues.instances import Instance
from fettle.issues.records import moment, type_of
from fettle.types import Completion, Message, Task, Trajectory, Turn

DOCUMENTED = "documented"
"""Under which a task keeps what it was made of."""
Kind = Literal["bug", "feature", "documentation", "general"]


class Recorded(BaseModel):
    """Fields beyond those that are known are kept as they came, and what was not given is not written."""

    model_config = ConfigDict(frozen=True, extra="allow")


class Step(Recorded):
    """What was done, what was seen of it, and what was said then."""

    action: str
    observation: str
    response: str


class About(Recorded):
    """The issue."""

    issue_number: str | int = ""
    issue_title: str = ""
    issue_body: str = ""
    """Whole."""
    issue_type: Kind = "general"
    issue_labels: tuple[str, ...] = ()
    issue_created_at: str | None = None
    issue_closed_at: str | None = None


class Outcome(Recorded):
    """What came of it, when it was tested."""

    reward: Annotated[float, Field(allow_inf_nan=False)]
    resolved: bool
    """Whether every test that failed passes, and none that passed fails."""
    problem: str = ""
    """The id of the problem whose tests said so."""


class IssueTrajectory(Recorded):
    """The steps of one attempt at one issue."""

    issue_id: Annotated[str, Field(min_length=1)]
    issue_url: str = ""
    repository: str = ""
    steps: tuple[Step, ...]
    metadata: About = About()
    created_at: str = ""
    source: str = "git"
    """``github``, ``gitee``, or ``git`` where there was no tracker."""
    outcome: Outcome | None = None
    """Beside the documented fields; None where nothing was tested, and so nothing is known of its worth."""


def read_trajectories(path: Path) -> list[IssueTrajectory]:
    """Those of a file.

    Raises:
        DataError: it cannot be read, or an entry is something else, with the place.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}): give a JSON list of trajectories") from error
    if not isinstance(entries, list) or not entries:
        raise DataError(f"{path} holds no trajectory: give a JSON list of them")
    return [_checked(entry, f"{path}, entry {at}") for at, entry in enumerate(entries)]


def _checked(entry: Any, place: str) -> IssueTrajectory:
    try:
        found = IssueTrajectory.model_validate(entry)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the entry"
        raise DataError(f"{place}: {where} cannot be used ({first['msg']})") from error
    for name in ("issue_created_at", "issue_closed_at"):
        if said := getattr(found.metadata, name):
            moment(said, place=f"{place}: metadata.{name}")
    return found


def written(trajectories: Iterable[IssueTrajectory]) -> str:
    """The text of a file, which reads back to equal trajectories."""
    return json.dumps([each.model_dump(mode="json", exclude_unset=True) for each in trajectories], indent=1) + "\n"


def asked(trajectory: IssueTrajectory, at: int) -> str:
    """Everything that stood there before the response of step ``at``: the issue, body and all, and the steps so far."""
    about, first = trajectory.metadata, trajectory.steps[0].observation
    told = [text for text in (about.issue_title, about.issue_body) if text.strip() and text not in first]
    for place, step in enumerate(trajectory.steps[: at + 1]):
        told.append(step.observation if not place else f"Action: {step.action}\nObservation: {step.observation}")
        if place < at and step.response.strip():
            told.append(f"Response: {step.response}")
    return "\n\n".join(text for text in told if text.strip())


def responses(trajectory: IssueTrajectory) -> list[int]:
    """The steps at which something was said."""
    return [at for at, step in enumerate(trajectory.steps) if step.response.strip()]


def statement(trajectory: IssueTrajectory) -> str:
    """The issue in words."""
    about = trajectory.metadata
    return "\n\n".join(filter(str.strip, (about.issue_title, about.issue_body))) or asked(trajectory, 0)


# --- the lossless schema --------------------------------------------------------------------------


def as_episode(trajectory: IssueTrajectory) -> Trajectory:
    """The same as an episode, message by message, for a file of ``fettle.trajectory``; nothing of it is lost.

    Raises:
        DataError: nothing was said, or nothing is known of what it was worth.
    """
    said = responses(trajectory)
    if not said or trajectory.outcome is None:
        what = "no outcome" if said else "no response"
        raise DataError(f"the trajectory of {trajectory.issue_id} has {what}, and an episode needs one")
    messages = conversation(trajectory)
    kept = trajectory.model_dump(mode="json", exclude_unset=True)
    outcome = trajectory.outcome
    rewards = [0.0] * (len(said) - 1) + [outcome.reward]
    return Trajectory(
        task=Task(messages[:1], {DOCUMENTED: kept, "instance": outcome.problem}, "issues"),
        turns=tuple(Turn([], Completion([], [], "stop", 0), reward) for reward in rewards),
        messages=messages,
        terminated=True,
        truncated=False,
        components={"outcome": outcome.reward},
        group=trajectory.issue_id,
        measured={"issue/resolved": float(outcome.resolved)},
    )


def conversation(trajectory: IssueTrajectory) -> tuple[Message, ...]:
    """What was seen and said in turn, up to the last response."""
    messages: list[Message] = []
    seen = [asked(trajectory, 0)]
    for place, step in enumerate(trajectory.steps):
        if place:
            seen.append(f"Action: {step.action}\nObservation: {step.observation}")
        if step.response.strip():
            messages += [Message("user", "\n\n".join(seen)), Message("assistant", step.response)]
            seen = []
    return tuple(messages)


def of_episode(episode: Trajectory, problems: Sequence[Instance] = ()) -> IssueTrajectory:
    """The documented form of an episode: what it was made of, or else what was played of one of ``problems``.

    Raises:
        DataError: it is no episode of an issue, or its problem is not among them.
    """
    data = episode.task.data
    if DOCUMENTED in data:
        return _checked(data[DOCUMENTED], f"the episode of {episode.group}")
    found = next((one for one in problems if one.instance_id == data.get("instance")), None)
    if found is None:
        raise DataError(f"an episode is of {data.get('instance')!r}, which is none of the {len(problems)} problems")
    seen = [message.content for message in episode.messages if message.role in ("user", "tool")]
    said = [message.content for message in episode.messages if message.role == "assistant"]
    actions = ["read the issue", *("go on" for _ in said[1:])]
    steps = [Step(action=a, observation=o, response=r) for a, o, r in zip(actions, seen, said, strict=False)]
    resolved = bool(episode.measured.get("issue/resolved"))
    return attempt(found, steps, Outcome(reward=episode.reward, resolved=resolved, problem=found.instance_id))


def attempt(problem: Instance, steps: Sequence[Step], outcome: Outcome) -> IssueTrajectory:
    """An attempt at a problem of a history."""
    title, _, body = problem.problem_statement.partition("\n")
    about = About(
        issue_number=problem.number,
        issue_title=title.strip(),
        issue_body=body.strip(),
        issue_type=type_of(title.lower()),
    )
    return IssueTrajectory(
        issue_id=problem.instance_id,
        issue_url="",
        repository=problem.repo,
        steps=tuple(steps),
        metadata=about,
        created_at=problem.created_at,
        source="git",
        outcome=outcome,
    )
