"""The documented data set: its own response for each step, its own outcome for each attempt."""

import json
from pathlib import Path

import pytest

from fettle.errors import DataError
from fettle.issues.examples import SYSTEM, converted, read_examples, written
from fettle.issues.trajectories import IssueTrajectory
from tests.issues.attempts import STEPS, trajectory


def made(**given: object) -> IssueTrajectory:
    return IssueTrajectory.model_validate(trajectory(**given))


def test_each_response_is_the_target_of_what_stood_before_it():
    found = converted([made()]).examples
    assert [each.output_text for each in found] == [step["response"] for step in STEPS[:3]]
    assert [each.metadata.step_index for each in found] == [0, 1, 2]
    for each in found:
        assert each.input_text.startswith(SYSTEM)
        assert "gives minus one" in each.input_text
        assert each.output_text not in each.input_text


@pytest.mark.parametrize("reward", [0.0, 1.0])
def test_the_reward_is_the_outcome_s_wherever_a_step_stands(reward):
    found = converted([made(outcome={"reward": reward, "resolved": bool(reward)})]).examples
    assert [each.reward for each in found] == [reward] * 3


def test_what_was_never_tested_or_said_is_counted_and_left_out():
    found = converted([made(outcome=None), made(outcome=None), made(steps=STEPS[3:]), made()])
    assert len(found.examples) == 3
    assert sorted(found.dropped.values()) == [1, 2]


def test_lines_read_back_to_the_same(tmp_path: Path):
    found = converted([made()]).examples
    path = tmp_path / "train.jsonl"
    path.write_text(written(found))
    assert read_examples(path) == found
    row = json.loads(path.read_text().splitlines()[0])
    assert set(row) == {"input_text", "output_text", "reward", "metadata"}
    documented = {"issue_id", "issue_url", "repository", "steps_count", "source", "step_index"}
    assert documented <= set(row["metadata"])


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"input_text": "a", "output_text": "", "reward": 1}, r":1: output_text cannot be used"),
        ({"input_text": "a", "output_text": "b"}, r":1: reward cannot be used"),
        ({"input_text": "a", "output_text": "b", "reward": 1, "metadata": {"steps_count": "x"}}, r"steps_count"),
    ],
)
def test_a_spoilt_line_is_refused_with_the_place(tmp_path, row, says):
    path = tmp_path / "train.jsonl"
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(DataError, match=says):
        read_examples(path)
    path.write_text("")
    with pytest.raises(DataError, match="is empty"):
        read_examples(path)
