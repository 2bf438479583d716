"""An issue as every tracker's is read, and what links it to changes of the code."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from fettle.errors import DataError

Outcome = Literal["open", "fixed", "rejected", "duplicate", "stale"]


@dataclass(frozen=True, slots=True)
class Comment:
    """What somebody said of an issue."""

    author: str
    body: str
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Issue:
    """An issue or a pull request, whichever tracker it came from; times are in UTC."""

    source: Literal["github", "gitee"]
    number: str
    """A text: Gitee's are such as ``I5ABCD``."""
    title: str
    body: str
    outcome: Outcome
    created_at: datetime
    updated_at: datetime
    closed_at: datetime | None = None
    is_change: bool = False
    """A pull request, which is a proposal to change the code."""
    url: str = ""
    labels: tuple[str, ...] = ()
    comments: tuple[Comment, ...] = ()
    commits: tuple[str, ...] = ()
    """Hashes of commits that the tracker itself says closed or merged it."""

    @property
    def type(self) -> Literal["bug", "feature", "documentation", "general"]:
        """What kind of work it asks for, by its labels and then its title."""
        return type_of(" ".join((*self.labels, self.title)).lower())


@dataclass(frozen=True, slots=True)
class Tracker:
    """Everything that one export holds, by number."""

    issues: Mapping[str, Issue] = field(default_factory=dict)
    changes: Mapping[str, Issue] = field(default_factory=dict)

    def closed_by(self, commit: str) -> Issue | None:
        """The issue that the tracker says a commit closed."""
        return next((issue for issue in self.issues.values() if commit in issue.commits), None)

    def merged_as(self, commit: str) -> Issue | None:
        """The pull request that was merged as a commit."""
        return next((change for change in self.changes.values() if commit in change.commits), None)


def moment(text: object, *, place: str) -> datetime:
    """A time of an export, in UTC; without a zone it is taken for that.

    Raises:
        DataError: it is none.
    """
    try:
        found = datetime.fromisoformat(str(text).strip().replace("Z", "+00:00"))
    except ValueError as error:
        raise DataError(f"{place} is {text!r}, which is no time such as 2026-01-31T09:30:00Z") from error
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def type_of(words: str) -> Literal["bug", "feature", "documentation", "general"]:
    """What kind of work some words in lower case ask for."""
    if any(word in words for word in ("bug", "fix", "error", "crash", "regression", "缺陷")):
        return "bug"
    if any(word in words for word in ("feature", "enhancement", "request", "需求")):
        return "feature"
    return "documentation" if "doc" in words else "general"
