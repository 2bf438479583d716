"""An issue as every tracker's is read, and what links it to changes of the code."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Literal

from fettle.errors import DataError

ADDRESS = re.compile(
    r"https?://(?P<host>[^/\s]+)(?:/\S*?)?/(?P<name>[\w.-]+/[\w.-]+)/(?:-/)?(?:issues|pulls?|merge_requests)/\w+"
)
"""Of an issue or a pull request, as it is shown or as the tracker's interface has it."""
Outcome = Literal["open", "fixed", "rejected", "duplicate", "stale"]


@dataclass(frozen=True, slots=True)
class Project:
    """A repository as a host has it, which a reference may name."""

    name: str
    """``owner/name``, in lower case."""
    host: str = ""
    """Empty where it is not told."""

    @classmethod
    def at(cls, name: str, host: str | None) -> "Project":
        """By names as they are written; a host without a dot is a name that only its user's machine knows."""
        host = (host or "").rpartition("@")[2].partition(":")[0].lower()
        for part in ("www.", "api.", "ssh."):
            host = host.removeprefix(part)
        return cls(name.lower(), host if "." in host else "")

    def may_be(self, other: "Project") -> bool:
        """Whether nothing that is told of the two differs."""
        return self.name == other.name and (not self.host or not other.host or self.host == other.host)


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
    def project(self) -> Project | None:
        """Whose it is, by its address."""
        found = ADDRESS.match(self.url)
        return Project.at(found["name"], found["host"]) if found else None

    @property
    def type(self) -> Literal["bug", "feature", "documentation", "general"]:
        """What kind of work it asks for, by its labels and then its title."""
        return type_of(" ".join((*self.labels, self.title)).lower())


@dataclass(frozen=True, slots=True)
class Tracker:
    """Everything that one export holds, by number."""

    issues: Mapping[str, Issue] = field(default_factory=dict)
    changes: Mapping[str, Issue] = field(default_factory=dict)
    projects: frozenset[Project] = frozenset()
    """Whose issues these are: what names another project is none of them."""

    def of(self, project: Project | None) -> "Tracker":
        """The same, as that of a repository; None where it is not told whose that is.

        Raises:
            DataError: every address in the export is another project's.
        """
        told = frozenset(found for each in (*self.issues.values(), *self.changes.values()) if (found := each.project))
        if project is None:
            return replace(self, projects=told)
        short = project.name.rpartition("/")[2]
        own = frozenset(each for each in told if each.name.rpartition("/")[2] == short)  # a fork's is that of both
        if told and not own:
            others = ", ".join(sorted({each.name for each in told})[:3])
            raise DataError(
                f"the export is of {others}, and the repository's origin is {project.name}: give the export of "
                f"{project.name}, or a clone of the project that the export is of"
            )
        return replace(self, projects=own | {project})

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
