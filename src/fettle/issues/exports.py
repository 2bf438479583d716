"""Exports of trackers: GitHub's REST answers, ``gh --json`` and migration archives; Gitee's and GitCode's answers."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fettle.errors import DataError
from fettle.issues.records import Comment, Issue, Outcome, Tracker, moment

CAMEL = re.compile(r"(?<=[a-z])([A-Z])")
"""Where a name of ``gh --json`` has a capital."""
LISTS = ("labels", "comments", "timeline", "events")
"""Fields that are lists where an export has them; REST answers count comments instead."""
CHINESE_OR_DETAIL = ("issue_state", "issue_type", "issue_state_detail", "security_hole")
"""Names that only Gitee and GitCode use."""
REJECTED = frozenset({"not_planned", "rejected", "wontfix", "invalid", "已拒绝"})
DUPLICATE = frozenset({"duplicate", "重复"})
STALE = frozenset({"stale", "inactive"})


def read_export(path: Path) -> Tracker:
    """What a file, or a folder of a migration archive's ``issues_000001.json`` and the like, holds.

    Raises:
        DataError: it cannot be read, or is no export of a tracker that is known.
    """
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise DataError(f"{path} holds no .json file: give a tracker's export, or the folder of a migration archive")
    found = [_issue(entry, f"{name}: entry {at}") for name in files for at, entry in enumerate(_entries(name))]
    kept = [issue for issue in found if issue is not None]
    if not kept:
        raise DataError(f"{path} holds no issue and no pull request: is it the export of an empty tracker?")
    return Tracker(
        {issue.number: issue for issue in kept if not issue.is_change},
        {issue.number: issue for issue in kept if issue.is_change},
    )


def _entries(path: Path) -> Iterable[Mapping[str, Any]]:
    """The mappings of one file: a list of them, one that holds a list, or one a line."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}): give a tracker's export in JSON") from error
    try:
        tree = json.loads(text)
    except ValueError:
        tree = [_line(path, at, line) for at, line in enumerate(text.splitlines(), 1) if line.strip()]
    if isinstance(tree, Mapping):
        lists = [
            value for name in ("issues", "pulls", "pull_requests", "items") if isinstance(value := tree.get(name), list)
        ]
        tree = [entry for entries in lists for entry in entries] if lists else [tree]
    if not isinstance(tree, list):
        raise DataError(f"{path} holds {type(tree).__name__}, and an export is a list of issues")
    return tree


def _line(path: Path, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise DataError(f"{path}, line {number}, is no JSON ({error}): give a tracker's export") from error


def _issue(entry: Any, place: str) -> Issue | None:
    """What one entry says; None for what must not be read, which is security's."""
    if not isinstance(entry, Mapping):
        raise DataError(f"{place} is {type(entry).__name__}, and an issue is a mapping: is this a tracker's export?")
    tree = {CAMEL.sub(lambda at: f"_{at[1].lower()}", str(name)): value for name, value in entry.items()}
    if missing := [name for name in ("number", "title", "created_at") if not tree.get(name)]:
        raise DataError(f"{place} has no {missing[0]}: is this the export of a tracker's issues?")
    for name in LISTS:
        if tree.get(name) and not isinstance(tree[name], list | int if name == "comments" else list):
            raise DataError(f"{place}: {name} is {type(tree[name]).__name__}, and a list is needed")
    if tree.get("security_hole") is True:
        return None
    created = moment(tree["created_at"], place=f"{place}: created_at")
    closed = tree.get("closed_at") or tree.get("finished_at") or tree.get("merged_at")
    return Issue(
        source="gitee" if any(name in tree for name in CHINESE_OR_DETAIL) else "github",
        number=str(tree["number"]).lstrip("#!"),
        title=str(tree["title"]).strip(),
        body=str(tree.get("body") or tree.get("description") or ""),
        outcome=_outcome(tree),
        created_at=created,
        updated_at=moment(tree.get("updated_at") or tree["created_at"], place=f"{place}: updated_at"),
        closed_at=moment(closed, place=f"{place}: closed_at") if closed else None,
        is_change=_is_change(tree),
        url=str(tree.get("html_url") or tree.get("url") or ""),
        labels=tuple(_name(label) for label in tree.get("labels") or ()),
        comments=_comments(tree, place),
        commits=_commits(tree),
    )


def _is_change(tree: Mapping[str, Any]) -> bool:
    return bool(tree.get("pull_request")) or any(
        name in tree for name in ("merge_commit_sha", "merge_commit", "base", "base_ref_name", "head_ref_name")
    )


def _outcome(tree: Mapping[str, Any]) -> Outcome:
    detail = tree.get("issue_state_detail")
    words = {str(tree.get(name) or "").lower() for name in ("state", "state_reason", "issue_state")}
    words |= {_name(label).lower() for label in tree.get("labels") or ()}
    words |= {str(detail.get("title") or "").lower()} if isinstance(detail, Mapping) else set()
    if words & {"open", "progressing"} and not words & {"closed", "merged"}:
        return "open"
    if words & REJECTED:
        return "rejected"
    if words & DUPLICATE:
        return "duplicate"
    return "stale" if words & STALE else "fixed"


def _comments(tree: Mapping[str, Any], place: str) -> tuple[Comment, ...]:
    """Where the export has them; GitHub's REST lists only say how many there are."""
    given = tree.get("comments")
    if not isinstance(given, list):
        return ()
    found = []
    for at, entry in enumerate(given):
        if not isinstance(entry, Mapping):
            raise DataError(f"{place}: comments[{at}] is {type(entry).__name__}, and a comment is a mapping")
        own = {CAMEL.sub(lambda at: f"_{at[1].lower()}", str(name)): value for name, value in entry.items()}
        created = moment(own.get("created_at"), place=f"{place}: comments[{at}].created_at")
        updated = moment(own.get("updated_at") or own["created_at"], place=f"{place}: comments[{at}].updated_at")
        found.append(Comment(_name(own.get("user") or own.get("author")), str(own.get("body") or ""), created, updated))
    return tuple(found)


def _commits(tree: Mapping[str, Any]) -> tuple[str, ...]:
    """Of a timeline's ``closed`` events, and what a pull request was merged as."""
    merged = tree.get("merge_commit_sha") or tree.get("merge_commit")
    named = [merged.get("oid") if isinstance(merged, Mapping) else merged]
    events = tree.get("timeline") or tree.get("events") or ()
    named += [
        event.get("commit_id") for event in events if isinstance(event, Mapping) and event.get("event") == "closed"
    ]
    return tuple(str(commit) for commit in named if commit)


def _name(value: Any) -> str:
    """Of a label or a person, which are texts or mappings."""
    if isinstance(value, Mapping):
        value = value.get("name") or value.get("login") or value.get("title")
    return str(value or "")
