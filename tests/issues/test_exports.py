"""Exports of four kinds are read to the same; what is none is refused by its place."""

from datetime import UTC, datetime

import pytest

from fettle.errors import DataError
from fettle.issues.exports import read_export
from fettle.issues.records import Project
from tests.issues.conftest import issue


def test_githubs_answers_hold_issues_and_changes(export):
    change = issue(9, "Add properly", pull_request={"url": "u"}, merge_commit_sha="abc")
    tracker = read_export(export([issue(7, "Adding"), change]))
    assert list(tracker.issues) == ["7"]
    assert tracker.merged_as("abc").number == "9"
    assert tracker.issues["7"].type == "bug"
    assert tracker.issues["7"].closed_at == datetime(2026, 1, 1, 11, tzinfo=UTC)


def test_what_gh_prints_has_its_names_in_camel_case(export):
    given = {"number": 7, "title": "Adding", "createdAt": "2026-01-01T09:00:00Z", "closedAt": None, "state": "OPEN"}
    found = read_export(export([given])).issues["7"]
    assert (found.outcome, found.closed_at, found.body) == ("open", None, "")


def test_gitees_answers(export):
    given = {
        "number": "I5ABCD",
        "title": "加法错误",
        "body": "",
        "state": "closed",
        "issue_state": "已完成",
        "issue_state_detail": {"id": 3, "title": "已完成", "serial": 2},
        "issue_type": "缺陷",
        "created_at": "2026-01-01T17:00:00+08:00",
        "finished_at": "2026-01-01T19:00:00+08:00",
        "labels": ["缺陷"],
    }
    secret = {**given, "number": "I5SAFE", "security_hole": True}
    tracker = read_export(export([given, secret]))
    assert list(tracker.issues) == ["I5ABCD"]
    found = tracker.issues["I5ABCD"]
    assert (found.source, found.outcome, found.type) == ("gitee", "fixed", "bug")
    assert found.created_at == datetime(2026, 1, 1, 9, tzinfo=UTC)


@pytest.mark.parametrize(
    ("given", "outcome"),
    [
        ({"state": "open"}, "open"),
        ({"state": "progressing"}, "open"),
        ({"state": "rejected"}, "rejected"),
        ({"state_reason": "not_planned"}, "rejected"),
        ({"labels": ["duplicate"]}, "duplicate"),
        ({"labels": ["stale"]}, "stale"),
        ({}, "fixed"),
    ],
)
def test_how_an_issue_ended(export, given, outcome):
    assert read_export(export([issue(7, "Adding", **given)])).issues["7"].outcome == outcome


@pytest.mark.parametrize(
    ("url", "project"),
    [
        ("https://github.com/Acme/Shop/pull/7", Project("acme/shop", "github.com")),
        ("https://api.github.com/repos/acme/shop/issues/7", Project("acme/shop", "github.com")),
        ("https://gitee.com/acme/shop/issues/I5ABCD", Project("acme/shop", "gitee.com")),
        ("https://gitee.com/api/v5/repos/acme/shop/issues/I5ABCD", Project("acme/shop", "gitee.com")),
        ("https://gitcode.com/acme/shop/merge_requests/7", Project("acme/shop", "gitcode.com")),
        ("", None),
    ],
)
def test_an_address_tells_whose_an_issue_is(export, url, project):
    tracker = read_export(export([issue(7, "Adding", url=url)]))
    assert tracker.issues["7"].project == project
    assert tracker.of(None).projects == ({project} if project else set())


def test_a_migration_archive_is_a_folder_of_files(tmp_path, export):
    export([issue(1, "One")], "issues_000001.json")
    export([issue(2, "Two")], "issues_000002.json")
    assert list(read_export(tmp_path).issues) == ["1", "2"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds no issue"),
        ("[1]", "entry 0 is int"),
        ('[{"key": "ABC-1", "fields": {}}]', "entry 0 has no number: is this the export of a tracker's issues"),
        ('"text"', "holds str, and an export is a list"),
        ('{"number": 1\nnonsense', "line 1, is no JSON"),
        ('[{"number": 1, "title": "a", "created_at": "yesterday"}]', "created_at is 'yesterday'"),
        (
            '[{"number": 1, "title": "a", "created_at": "2026-01-01", "labels": 3}]',
            "entry 0: labels is int, and",
        ),
        ('[{"number": 1, "title": "a", "created_at": "2026-01-01", "timeline": 4}]', "entry 0: timeline is int"),
        ('[{"number": 1, "title": "a", "created_at": "2026-01-01", "comments": [3]}]', r"comments\[0\] is int"),
    ],
)
def test_what_is_no_export_is_refused_by_its_place(tmp_path, text, says):
    path = tmp_path / "export.json"
    path.write_text(text)
    with pytest.raises(DataError, match=says):
        read_export(path)
