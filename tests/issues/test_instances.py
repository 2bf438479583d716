"""SWE-bench's format is read and written; what is none is refused by its line."""

import json

import pytest

from fettle.errors import DataError
from fettle.issues.instances import read_instances, written

ROW = {
    "instance_id": "owner__name-12",
    "repo": "owner/name",
    "base_commit": "abc",
    "patch": "diff --git a/a.py b/a.py\n",
    "problem_statement": "It is wrong.",
}


def test_older_dumps_hold_lists_as_texts_and_other_fields_are_kept(tmp_path):
    path = tmp_path / "rows.jsonl"
    row = {**ROW, "FAIL_TO_PASS": '["t::a"]', "PASS_TO_PASS": ["t::b"], "difficulty": "<15 min"}
    path.write_text(json.dumps(row) + "\n")
    (instance,) = read_instances(path)
    assert (instance.FAIL_TO_PASS, instance.PASS_TO_PASS, instance.number) == (("t::a",), ("t::b",), "12")
    path.write_text(written([instance]))
    assert json.loads(path.read_text())["difficulty"] == "<15 min"
    assert read_instances(path) == [instance]


def test_a_list_in_json_is_read_too(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([ROW]))
    assert read_instances(path)[0].instance_id == "owner__name-12"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds no instance"),
        ("{\n", "line 1, is no JSON"),
        (json.dumps({**ROW, "patch": ""}), "line 1: patch cannot be used"),
        (json.dumps({"repo": "a/b"}), "line 1: instance_id cannot be used"),
        (json.dumps({**ROW, "FAIL_TO_PASS": "not json"}), "line 1: FAIL_TO_PASS cannot be used"),
        (json.dumps({**ROW, "FAIL_TO_PASS": None}), "line 1: FAIL_TO_PASS cannot be used"),
        (json.dumps(ROW) + "\n" + json.dumps(ROW), "line 2: owner__name-12 was there before"),
    ],
)
def test_what_is_no_instance_is_refused_by_its_line(tmp_path, text, says):
    path = tmp_path / "rows.jsonl"
    path.write_text(text)
    with pytest.raises(DataError, match=says):
        read_instances(path)
