"""``fettle issues``, from a repository to problems that their tests tell."""

import json

import pytest

from fettle.issues.git import Repository
from tests.commands import typed
from tests.issues.conftest import History, issue


def test_from_a_repository_to_problems_that_their_tests_tell(history: History, export, tmp_path):
    told = export([issue(7, "Adding two numbers gives their difference")])
    mined, kept, folder = (tmp_path / name for name in ("mined.jsonl", "validated.jsonl", "problem"))
    code, out, _ = typed("issues", "mine", str(history.path), "--issues", str(told), "--out", str(mined))
    assert code == 0
    assert f"1 problems, 1 with an issue, 1 with tests: {mined}" in out
    assert "1 dropped: neither linked to an issue nor said to mend anything" in out
    where = ("--repository", str(history.path))
    code, out, _ = typed("issues", "validate", str(mined), *where, "--out", str(kept), "seconds=30")
    assert code == 0
    assert "local__calculator-7: 1 tests tell, 1 must go on passing" in out
    (row,) = map(json.loads, kept.read_text().splitlines())
    assert row["FAIL_TO_PASS"] == ["tests/test_calc.py::test_add"]
    assert typed("issues", "split", str(kept))[2].startswith("fettle: of 1 problems split by cluster none is left")
    shown = tmp_path / "shown.jsonl"
    assert typed("issues", "demonstrate", str(kept), *where, "--out", str(shown), "--brief", "--slips")[0] == 0
    right, slip = (json.loads(line)["messages"] for line in shown.read_text().splitlines())
    assert right[:-1] == slip[:-1]
    assert "a + b" in right[-1]["content"]
    assert "a - b" in slip[-1]["content"]
    assert typed("issues", "demonstrate", str(kept), *where, "--out", str(shown))[0] == 0
    assert [said["role"] for said in json.loads(shown.read_text())["messages"]] == ["system", "user", "assistant"]
    code, out, _ = typed("issues", "checkout", str(kept), "local__calculator-7", *where, "--to", str(folder))
    assert code == 0
    assert len(list(Repository(folder).main_line())) == 1


@pytest.mark.parametrize(
    ("words", "says", "code"),
    [
        (["mine", "{tmp}"], "is no git repository: give the folder of one", 1),
        (["mine", "{tmp}/none"], "is no git repository", 1),
        (["mine", "{repo}", "max_fils=3"], "did you mean 'max_files'?", 2),
        (["mine", "{repo}", "--issues", "{tmp}/none.json"], "none.json cannot be read", 1),
        (["demonstrate", "{rows}", "--repository", "{repo}", "--slips"], "give --brief as well", 2),
        (["validate", "{tmp}/none.jsonl", "--repository", "{repo}"], "none.jsonl cannot be read", 1),
        (["checkout", "{rows}", "a__b-8", "--repository", "{repo}", "--to", "{tmp}/x"], "did you mean a__b-7?", 1),
        (["checkout", "{rows}", "a__b-7", "--repository", "{repo}", "--to", "{tmp}/x"], "has no commit 0000000", 1),
    ],
)
def test_mistakes_are_told_in_one_sentence(history: History, tmp_path, words, says, code):
    rows = tmp_path / "rows.jsonl"
    row = {"instance_id": "a__b-7", "repo": "a/b", "base_commit": "0000000", "patch": "p", "problem_statement": "s"}
    rows.write_text(json.dumps(row) + "\n")
    given = [word.format(tmp=tmp_path, repo=history.path, rows=rows) for word in words]
    ended, _, err = typed("issues", *given)
    assert (ended, err.count("\n")) == (code, 1)
    assert says in err
