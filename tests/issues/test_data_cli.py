"""``fettle issues convert`` and ``benchmark``: attempts, and what recipes learn from them."""

import json
import re
from pathlib import Path

import pytest

from fettle.data import conversations, episodes, preferences
from fettle.issues.examples import read_examples
from fettle.issues.instances import Instance, read_instances, written
from fettle.issues.trajectories import read_trajectories
from fettle.rollouts.trajectories import recorded
from tests.commands import typed
from tests.issues.attempts import STEPS, trajectory
from tests.issues.conftest import MORE_TESTS, History


@pytest.fixture
def attempts(tmp_path: Path) -> Path:
    """Two attempts at one issue, of which one solved it, and one at another that nobody tested."""
    path = tmp_path / "trajectories_x.json"
    outcomes = [{"reward": 1.0, "resolved": True, "problem": "a__b-7"}, {"reward": 0.0, "resolved": False}]
    made = [trajectory(7, outcome=outcome, steps=STEPS[:1]) for outcome in outcomes]
    made[1]["steps"] = [{**STEPS[0], "response": "I give up."}]
    path.write_text(json.dumps([*made, trajectory(8, outcome=None)]))
    return path


def converted(path: Path, form: str, *words: str) -> tuple[str, str]:
    """The file that is written, and what is said."""
    to = path.with_name(f"{form}.jsonl")
    code, out, err = typed("issues", "convert", str(path), "--to", form, "--out", str(to), *words)
    assert (code, err) == (0, "")
    return str(to), out


def test_each_form_is_read_by_whoever_learns_from_it(attempts):
    path, out = converted(attempts, "examples")
    assert [each.reward for each in read_examples(Path(path))] == [1.0, 0.0]
    assert "1 dropped: nothing was tested, so that nothing is known of what it is worth" in out
    path, out = converted(attempts, "conversations")
    assert len(conversations(path)) == 1
    assert "2 dropped: not solved, and so not to be shown" in out
    assert [each.reward for each in episodes(converted(attempts, "episodes")[0])] == [1.0, 0.0]
    [found] = preferences(converted(attempts, "preferences")[0])
    assert (found.chosen, found.rejected) == (STEPS[0]["response"], "I give up.")


def test_the_lossless_form_comes_back_as_it_was(attempts, tmp_path):
    path, _ = converted(attempts, "trajectories", "min_reward=0.5")
    assert len(list(recorded(Path(path)))) == 1
    assert converted(Path(path), "examples")[1].startswith("     1 examples")


def test_problems_are_those_of_the_attempts(attempts, tmp_path):
    given = {"repo": "a/b", "base_commit": "0", "patch": "p", "problem_statement": "s"}
    problems = [Instance.model_validate({"instance_id": name, **given}) for name in ("a__b-7", "a__b-8")]
    known = tmp_path / "problems.jsonl"
    known.write_text(written(problems))
    path, _ = converted(attempts, "problems", "--problems", str(known))
    assert [one.instance_id for one in read_instances(Path(path))] == ["a__b-7"]


def test_issues_are_held_out_whole(attempts, tmp_path):
    attempts.write_text(json.dumps([*json.loads(attempts.read_text()), trajectory(9)]))
    held = tmp_path / "held.jsonl"
    path, _ = converted(attempts, "examples", "--heldout", str(held), "--share", "0.4")
    sides = [{each.metadata.issue_id for each in read_examples(one)} for one in (Path(path), held)]
    assert sorted(map(len, sides)) == [1, 1]
    assert not sides[0] & sides[1]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ["examples", "--heldout", "held", "--share", "0.5"],
            r"for held \(1 dropped: nothing was tested, .*another --seed",
        ),
        (["examples", "min_reward=2"], r"for out \(3 dropped: earned less than min_reward"),
        (["preferences", "min_reward=1"], r"\(2 dropped: earned .*; 1 dropped: nothing else answers the same"),
        (["conversations", "issue_types=[feature]"], r"no conversations are left for out \(3 dropped: of another kind"),
    ],
)
def test_a_file_without_a_line_is_refused_and_none_is_written(attempts, tmp_path, monkeypatch, words, says):
    monkeypatch.chdir(tmp_path)
    code, out, err = typed("issues", "convert", str(attempts), "--out", "out", "--to", *words)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert re.search(says, err)
    assert list(tmp_path.iterdir()) == [attempts]


def test_a_benchmark_is_what_its_tests_say(history: History, tmp_path):
    base, fix = history.git("rev-parse", "HEAD~1"), history.git("rev-parse", "HEAD")
    patches = [history.git("diff", base, fix, "--", path) + "\n" for path in ("calc.py", "tests/test_calc.py")]
    problem = Instance(
        instance_id="local__calculator-7",
        repo="local/calculator",
        base_commit=base,
        patch=patches[0],
        test_patch=patches[1],
        problem_statement="Sums are differences",
        FAIL_TO_PASS=("tests/test_calc.py::test_add",),
    )
    assert "def test_add" in MORE_TESTS
    path, folder = tmp_path / "p.jsonl", tmp_path / "all"
    path.write_text(written([problem]))
    words = ("issues", "benchmark", str(path), "--repository", str(history.path), "--benchmarks", str(folder))
    code, out, _ = typed(*words, "--id", "x")
    assert (code, "1 solved, 0 not" in out) == (0, True)
    [found] = read_trajectories(folder / "trajectories_x.json")
    assert found.outcome is not None
    assert found.outcome.resolved
    assert typed(*words, "--id", "x")[2].endswith("is there already: give the benchmark another id\n")
    replies = tmp_path / "replies.jsonl"
    replies.write_text('{"instance_id": "local__calculator-7", "reply": "no"}\n' * 2)
    assert "has a reply already: leave one" in typed(*words, "--replies", str(replies))[2]
    code, _, err = typed(
        "issues", "convert", "x.json", "--to", "examples", "--out", "y", "--heldout", "z", "--share", "1"
    )
    assert (code, err.count("\n"), "--share is 1, which leaves nothing" in err) == (2, 1, True)
