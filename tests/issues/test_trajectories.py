"""Documented trajectories: read, written, told without loss as episodes, and refused with the place."""

import json
from pathlib import Path

import pytest

from fettle.errors import DataError
from fettle.issues.instances import Instance
from fettle.issues.trajectories import (
    as_episode,
    asked,
    conversation,
    of_episode,
    read_trajectories,
    responses,
    written,
)
from fettle.rollouts.trajectories import line, recorded
from fettle.types import Completion, Message, Task, Trajectory, Turn
from tests.issues.attempts import STEPS, trajectory


def read(tmp_path: Path, *entries: object):
    path = tmp_path / "trajectories_x.json"
    path.write_text(json.dumps(list(entries)))
    return read_trajectories(path)


def test_what_is_written_reads_back_to_the_same_with_fields_of_others(tmp_path):
    entry = trajectory(theirs={"kept": [1, 2]})
    (found,) = read(tmp_path, entry)
    assert json.loads(written([found])) == [entry]


def test_what_was_not_given_is_not_written(tmp_path):
    bare = {"issue_id": "a", "steps": STEPS[:1]}
    assert json.loads(written(read(tmp_path, bare))) == [bare]


@pytest.mark.parametrize(
    ("spoilt", "says"),
    [
        ({"steps": [{"action": "a", "observation": "o"}]}, r"entry 0: steps\.0\.response cannot be used"),
        ({"issue_id": ""}, "entry 0: issue_id cannot be used"),
        ({"metadata": {"issue_type": "wish"}}, r"metadata\.issue_type cannot be used"),
        ({"metadata": {"issue_created_at": "soon"}}, r"metadata\.issue_created_at is 'soon', which is no time"),
        ({"outcome": {"reward": float("nan"), "resolved": True}}, r"outcome\.reward cannot be used"),
    ],
)
def test_a_spoilt_one_is_refused_with_the_place(tmp_path, spoilt, says):
    with pytest.raises(DataError, match=says):
        read(tmp_path, {**trajectory(), **spoilt})


def test_no_list_is_refused(tmp_path):
    path = tmp_path / "x.json"
    for text, says in (("{}", "holds no trajectory"), ("[]", "holds no trajectory"), ("{", "cannot be read")):
        path.write_text(text)
        with pytest.raises(DataError, match=says):
            read_trajectories(path)


def test_what_stood_before_a_response_is_all_that_did_and_no_more(tmp_path):
    (found,) = read(tmp_path, trajectory())
    assert responses(found) == [0, 1, 2]
    body = trajectory()["metadata"]["issue_body"]
    assert len(body) > 500
    assert all(body.strip() in asked(found, at) for at in range(4))
    assert "return a - b" not in asked(found, 0)
    assert asked(found, 1).endswith("Response: I look at calc.py.\n\nAction: view calc.py\nObservation: return a - b")
    assert "The sign is wrong." not in asked(found, 1)


def test_the_conversation_ends_with_what_was_said_last(tmp_path):
    (found,) = read(tmp_path, trajectory())
    told = conversation(found)
    assert [message.role for message in told] == ["user", "assistant"] * 3
    assert [message.content for message in told[1::2]] == [step["response"] for step in STEPS[:3]]


def test_as_an_episode_of_the_lossless_schema_nothing_is_lost(tmp_path):
    (found,) = read(tmp_path, trajectory(theirs=1))
    path = tmp_path / "episodes.jsonl"
    path.write_bytes(line(as_episode(found), episode=found.issue_id))
    (back,) = recorded(path)
    assert of_episode(back.trajectory) == found
    assert back.trajectory.reward == 1.0
    assert [turn.reward for turn in back.trajectory.turns] == [0.0, 0.0, 1.0]


@pytest.mark.parametrize(("given", "says"), [({"outcome": None}, "no outcome"), ({"steps": STEPS[3:]}, "no response")])
def test_what_is_no_episode_says_why(tmp_path, given, says):
    (found,) = read(tmp_path, trajectory(**given))
    with pytest.raises(DataError, match=says):
        as_episode(found)


def test_what_was_played_becomes_the_documented_form():
    problem = Instance(
        instance_id="a__b-7", repo="a/b", base_commit="0", patch="p", problem_statement="A bug\n\nIt is wrong."
    )
    played = Trajectory(
        Task((Message("user", "mend it"),), {"instance": "a__b-7"}, "issues"),
        (Turn([], Completion([], [], "stop", 0), 0.25),),
        (Message("system", "s"), Message("user", "mend it"), Message("assistant", "done")),
        terminated=True,
        truncated=False,
        measured={"issue/resolved": 0.0},
    )
    found = of_episode(played, [problem])
    assert (found.metadata.issue_title, found.metadata.issue_body, found.metadata.issue_type) == (
        "A bug",
        "It is wrong.",
        "bug",
    )
    assert found.outcome is not None
    assert (found.outcome.reward, found.outcome.resolved, found.steps[0].response) == (0.25, False, "done")
    with pytest.raises(DataError, match="none of the 0 problems"):
        of_episode(played)
