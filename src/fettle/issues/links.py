"""Which issue a commit closes, by what its message says and what the tracker says of it."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from fettle.issues.git import Commit
from fettle.issues.records import Issue, Project, Tracker

Via = Literal["tracker", "keyword", "change", "mention", "none"]

NUMBER = (
    r"(?:(?P<name>[\w.-]+/[\w.-]+)?#|gh-"
    r"|https?://(?P<host>[^/\s]+)(?:/\S*?)?/(?P<place>[\w.-]+/[\w.-]+)/(?:-/)?issues/)(?P<number>\w+)"
)
CLOSES = re.compile(rf"(?:\b(?:close[sd]?|fix(?:e[sd])?|resolve[sd]?)\b|修复|关闭|解决):?\s*{NUMBER}", re.IGNORECASE)
CHANGE = re.compile(r"\(#(\d+)\)\s*$|^Merge pull request #(\d+)\b|(?:^|\s)!(\d+)\b")
"""A pull request: as squashed by GitHub, as merged by GitHub, and as Gitee says it."""
MENTION = re.compile(r"(?:^|[\s(])#(\d+)\b|\b(I[0-9A-Z]{5})\b")
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
FIX = re.compile(
    r"\b(fix(es|ed)?|mend(s|ed)?|bug|regress\w*|crash\w*|wrong\w*|broken|incorrect\w*|typo)\b|修复", re.IGNORECASE
)
CONFIDENCE: dict[Via, float] = {"tracker": 1.0, "keyword": 0.95, "change": 0.8, "mention": 0.5, "none": 0.2}


@dataclass(frozen=True, slots=True)
class Link:
    """What a commit closes, as far as that is known."""

    via: Via
    """``change``: an issue that its pull request says it closes, or the pull request itself."""
    number: str = ""
    issue: Issue | None = None
    """None where only the number is known, or nothing."""

    @property
    def confidence(self) -> float:
        """How much the way it was found is worth, from 0 to 1: our own estimate."""
        return CONFIDENCE[self.via]


def link_of(commit: Commit, tracker: Tracker, messages: Iterable[str] = ()) -> Link:
    """What a commit closes: the tracker's own word first, then the message's; ``messages`` are those of its branch."""
    if (issue := tracker.closed_by(commit.sha)) is not None:
        return Link("tracker", issue.number, issue)
    said = "\n".join((commit.message, *messages))
    if (closed := _closed(said, tracker)) and closed not in tracker.changes:
        return Link("keyword", closed, tracker.issues.get(closed))
    change = tracker.merged_as(commit.sha)
    number = change.number if change is not None else _change(commit.subject)
    if number:
        return _by_change(number, tracker)
    mentioned = next(
        (found for match in MENTION.finditer(said) if (found := match[1] or match[2]) in tracker.issues), ""
    )
    return Link("mention", mentioned, tracker.issues[mentioned]) if mentioned else Link("none")


def is_fix(commit: Commit) -> bool:
    """Whether a commit's subject says that it mends something."""
    return FIX.search(commit.subject) is not None


def _by_change(number: str, tracker: Tracker) -> Link:
    """Through a pull request: to the issue that it says it closes, or to what it says itself."""
    change = tracker.changes.get(number)
    if change is None:
        return Link("change", number, tracker.issues.get(number))
    closed = _closed(f"{change.title}\n{change.body}", tracker)
    return Link("change", closed or number, tracker.issues.get(closed) or change)


def _closed(text: str, tracker: Tracker) -> str:
    """The number of the first issue that a text says is closed, and that is no other project's."""
    for found in CLOSES.finditer(COMMENT.sub("", text)):
        name = found["name"] or found["place"]
        if not name or any(Project.at(name, found["host"]).may_be(each) for each in tracker.projects):
            return found["number"]
    return ""


def _change(subject: str) -> str:
    found = CHANGE.search(subject)
    return next(filter(None, found.groups()), "") if found else ""
