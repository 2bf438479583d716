"""A file that grows by an episode at a time: whole episodes or none, one writer, the settings it was begun with."""

import json

import pytest

from fettle.errors import ConfigError, DataError, StorageError
from fettle.rollouts.collection import Collection
from fettle.rollouts.trajectories import recorded
from fettle.types import Completion, Failed, Message, Task, Trajectory, Turn
from tests.disks import full_disk

TASK = Task((Message("user", "?"),), {"answer": "!"}, "test")
SETTINGS = {"model": "tiny", "seed": 0}


def side(player: str = "", said: str = "!", task: Task = TASK) -> Trajectory:
    turn = Turn([1], Completion([5], [-0.5], "stop", 3), 1.0)
    return Trajectory(task, (turn,), (*task.prompt, Message("assistant", said)), True, False, player=player)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "some" / "all.jsonl"


def opened(path, **settings) -> Collection:
    return Collection(path, {**SETTINGS, **settings})


def names(path) -> list[str]:
    return [each.episode for each in recorded(path)]


def test_an_episode_is_in_the_file_as_soon_as_it_is_added(path):
    collection = opened(path)
    collection.add("a/0/0", [side()])
    assert names(path) == ["a/0/0"]
    collection.close()
    again = opened(path)
    assert again.done == {"a/0/0"}
    again.add("a/0/1", [side()])
    again.close()
    assert names(path) == ["a/0/0", "a/0/1"]


def test_another_writer_is_kept_out_until_the_first_is_done(path):
    first = opened(path)
    with pytest.raises(StorageError, match="is being written by another process"):
        opened(path)
    first.close()
    opened(path).close()


def test_other_settings_are_refused_by_name(path):
    first = opened(path)
    first.add("a/0/0", [side()])
    first.close()
    with pytest.raises(ConfigError, match=r'collected with other settings \(model: "tiny" there, "other" here\)'):
        opened(path, model="other")
    with pytest.raises(ConfigError, match=r"temperature: null there, 0\.5 here"):
        opened(path, temperature=0.5)


def test_settings_of_a_file_that_is_empty_yet_may_change(path):
    opened(path).close()
    opened(path, model="other").close()


@pytest.mark.parametrize("cut", [-9, -1])
def test_half_a_line_is_taken_out(path, cut):
    collection = opened(path)
    collection.add("a/0/0", [side()])
    collection.add("a/0/1", [side()])
    collection.close()
    whole = path.read_bytes()
    path.write_bytes(whole[:cut])
    again = opened(path)
    assert again.done == {"a/0/0"}
    again.add("a/0/1", [side()])
    again.close()
    assert path.read_bytes() == whole


@pytest.mark.parametrize("cut", [-9, -1])
def test_a_game_of_which_a_side_may_be_missing_is_taken_out(path, cut):
    collection = opened(path)
    for number in range(2):
        collection.add(f"a/{number}/0", [side("pro"), side("con")])
    collection.close()
    path.write_bytes(path.read_bytes()[:cut])
    again = opened(path)
    again.close()
    assert again.done == {"a/0/0"}
    assert names(path) == ["a/0/0"] * 2


def test_what_does_not_fit_on_the_disk_leaves_no_trace(path):
    collection = opened(path)
    collection.add("a/0/0", [side()])
    kept = path.read_bytes()
    with full_disk(room=len(kept) + 100), pytest.raises(StorageError, match="could not be written"):
        collection.add("a/0/1", [side(said="!" * 1000)])
    assert path.read_bytes() == kept
    assert collection.done == {"a/0/0"}
    collection.add("a/0/1", [side()])
    collection.close()
    assert names(path) == ["a/0/0", "a/0/1"]


def test_a_task_that_is_not_json_is_told_and_nothing_is_written(path):
    collection = opened(path)
    task = Task(TASK.prompt, {"answer": "!", "board": {1, 2}}, "test")
    with pytest.raises(DataError, match="holds what is not JSON"):
        collection.add("a/0/0", [side(), side(task=task)])
    collection.close()
    assert path.read_bytes() == b""


def test_failures_are_told_beside_the_file_until_they_are_tried_again(path):
    collection = opened(path)
    collection.failed("a/0/0", Failed(TASK, "it broke"))
    collection.close()
    about = json.loads(collection.about.read_text())
    assert about["failures"] == [{"episode": "a/0/0", "task": TASK.id, "reason": "it broke"}]
    assert about["settings"] == SETTINGS
    again = opened(path)
    assert (again.done, again.failures) == (set(), [])
    again.close()
    assert json.loads(collection.about.read_text())["failures"] == []


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="could not be written"):
        opened(tmp_path / "file" / "all.jsonl")
