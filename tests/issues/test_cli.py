"""``fettle issues``, from a repository to problems that their tests tell."""

import json
import signal
import subprocess
import sys

import pytest

from fettle.config.issues import Validation
from fettle.issues.decisions import Decisions
from fettle.issues.git import Repository
from fettle.issues.instances import read_instances
from tests.commands import typed
from tests.issues.conftest import MORE_TESTS, RIGHT, History, issue


def test_from_a_repository_to_problems_that_their_tests_tell(history: History, export, tmp_path):
    told = export([issue(7, "Adding two numbers gives their difference")])
    mined, kept, folder = (tmp_path / name for name in ("mined.jsonl", "validated.jsonl", "problem"))
    code, out, _ = typed("issues", "mine", str(history.path), "--issues", str(told), "--out", str(mined))
    assert code == 0
    assert f"1 problems, 1 with an issue, 1 with tests: {mined}" in out
    assert "1 dropped: neither linked to an issue nor said to mend anything" in out
    assert "none of the" not in out
    other, unlinked = export([issue(8, "Another")], "other.json"), tmp_path / "unlinked.jsonl"
    code, out, _ = typed("issues", "mine", str(history.path), "--issues", str(other), "--out", str(unlinked))
    assert code == 0
    assert "none of the 1 issues in the export was linked to a problem: is it this project's?" in out
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
    code, out, _ = typed("issues", "demonstrate", str(kept), *where, "--out", str(shown), "--apart", str(kept))
    assert out.split() == [
        "1",
        "left",
        "out:",
        "like",
        "one",
        "that",
        "is",
        "held",
        "out",
        "0",
        "conversations:",
        str(shown),
    ]
    code, out, _ = typed("issues", "checkout", str(kept), "local__calculator-7", *where, "--to", str(folder))
    assert code == 0
    assert len(list(Repository(folder).main_line())) == 1


KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from fettle.config.issues import Validation
from fettle.issues.decisions import Decisions
from fettle.issues.instances import read_instances
from fettle.issues.validation import validated
from fettle.sandbox import sandbox
mined, repository, part = map(Path, sys.argv[1:])
settings = Validation(seconds=30)
decisions = Decisions(part, repository, settings)
def told(instance, decision):
    decisions.add(instance, decision)
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(validated(read_instances(mined), repository, sandbox(settings.sandbox), settings, told=told))
"""


def test_what_was_decided_before_a_kill_is_not_decided_again(history: History, tmp_path):
    halves = MORE_TESTS + "\n\ndef test_half():\n    import calc\n    assert calc.half\n"
    history.commit("Fix halves, which are missing", {"calc.py": f"{RIGHT}half = 0.5\n", "tests/test_calc.py": halves})
    mined, kept, part = (tmp_path / name for name in ("mined.jsonl", "validated.jsonl", "validated.jsonl.part"))
    assert typed("issues", "mine", str(history.path), "--out", str(mined))[0] == 0
    ids = [one.instance_id for one in read_instances(mined)]
    killed = subprocess.run([sys.executable, "-c", KILLED, str(mined), str(history.path), str(part)], check=False)
    assert killed.returncode == -signal.SIGKILL
    (row,) = map(json.loads, part.read_bytes().splitlines())
    first = row["instance"]["instance_id"]
    part.write_bytes(part.read_bytes() + b'{"of": "cut sho')
    elsewise = Decisions(part, history.path, Validation(seconds=1))
    assert not any(map(elsewise.of, read_instances(mined)))  # under other settings nothing was decided
    where = ("--repository", str(history.path), "--out", str(kept))
    code, out, _ = typed("issues", "validate", str(mined), *where, "seconds=30")
    assert code == 0
    assert out.splitlines()[0] == f"1 of 2 problems were decided before: {part}"
    (second,) = set(ids) - {first}
    assert f"{first}:" not in out
    assert f"{second}: 1 tests tell" in out
    assert [one.instance_id for one in read_instances(kept)] == ids
    assert not part.exists()


@pytest.mark.parametrize(
    ("words", "says", "code"),
    [
        (["mine", "{tmp}"], "is no git repository: give the folder of one", 1),
        (["mine", "{tmp}/none"], "is no git repository", 1),
        (["mine", "{repo}", "max_fils=3"], "did you mean 'max_files'?", 2),
        (["mine", "{repo}", "--issues", "{tmp}/none.json"], "none.json cannot be read", 1),
        (["demonstrate", "{rows}", "--repository", "{repo}", "--slips"], "give --brief as well", 2),
        (["validate", "{tmp}/none.jsonl", "--repository", "{repo}"], "none.jsonl cannot be read", 1),
        (["validate", "{rows}", "--repository", "{repo}", "--out", "{tmp}/v"], "none of 1 problems can be told", 1),
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
