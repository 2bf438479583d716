"""Trajectories as rows: read back to the bit, refused where they are something else, chosen from, told to others."""

import json
import math
import struct
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fettle.data import conversations, episodes
from fettle.errors import DataError
from fettle.rollouts import Group
from fettle.rollouts.trajectories import (
    Wanted,
    conversation_row,
    episode_row,
    group_of,
    group_row,
    line,
    recorded,
    trajectory_of,
    trajectory_row,
)
from fettle.types import Completion, Failed, Message, Span, Task, ToolCall, Trajectory, Turn

TEXT = st.text(max_size=8)
NUMBER = st.floats(width=64)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
TOKENS = st.lists(st.integers(0, 2**31 - 1), max_size=5)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | FINITE | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
CALLS = st.lists(st.builds(ToolCall, TEXT, TEXT, TEXT), max_size=2).map(tuple)
ROLES = st.sampled_from(["system", "user", "assistant", "tool"])
MESSAGES = st.lists(st.builds(Message, ROLES, TEXT, CALLS, TEXT), max_size=3)
TASKS = st.builds(Task, MESSAGES.map(tuple), st.dictionaries(TEXT, JSON, max_size=3), TEXT)
COMPLETIONS = st.builds(
    Completion,
    TOKENS,
    st.lists(NUMBER, max_size=5),
    st.sampled_from(["stop", "length"]),
    st.integers(0, 2**40),
    st.none() | st.lists(NUMBER, max_size=5),
    st.none() | st.lists(st.lists(st.tuples(st.integers(0, 9), NUMBER), max_size=2), max_size=2),
    st.sampled_from([(), (Span(0, 2, 5), Span(2, 4, 7))]),
)
TRAJECTORIES = st.builds(
    Trajectory,
    task=TASKS,
    turns=st.lists(st.builds(Turn, TOKENS, COMPLETIONS, NUMBER), min_size=1, max_size=3).map(tuple),
    messages=MESSAGES.map(tuple),
    terminated=st.booleans(),
    truncated=st.booleans(),
    components=st.dictionaries(TEXT, NUMBER, max_size=3),
    temperature=st.floats(0.1, 2),
    group=TEXT,
    measured=st.dictionaries(TEXT, NUMBER | st.integers(), max_size=3),
    ending=st.sampled_from(["", "turns", "tokens", "context", "seconds", "environment"]),
    player=TEXT,
)

ASK, SAY = Message("user", "What is 2 + 3?"), Message("assistant", "It is 5.")
TASK = Task((ASK,), {"answer": "5"}, "test")


def trajectory(*messages: Message, reward: float = 1.0, tokens: int = 2, ending="", **fields) -> Trajectory:
    turn = Turn([1, 2], Completion([5] * tokens, [-0.5] * tokens, "stop", 3), reward)
    said = messages or (ASK, SAY)
    return Trajectory(TASK, (turn,), said, not ending, bool(ending), {"right": reward}, ending=ending, **fields)


def bits(value: object) -> object:
    """What a value is, to the bit: equality would take 0.0 for -0.0, 1 for True and nothing for NaN."""
    if isinstance(value, dict):
        return [(key, bits(inner)) for key, inner in value.items()]
    if isinstance(value, list | tuple):
        return [bits(inner) for inner in value]
    if isinstance(value, float):
        return "nan" if math.isnan(value) else struct.pack("<d", value)
    return (type(value).__name__, value)


@given(TRAJECTORIES)
def test_a_trajectory_comes_back_to_the_bit(whole):
    text = json.dumps(trajectory_row(whole), allow_nan=False)
    assert bits(asdict(trajectory_of(json.loads(text)))) == bits(asdict(whole))


@given(st.lists(TRAJECTORIES, max_size=3))
def test_a_file_of_them_comes_back_to_the_bit(tmp_path_factory, wholes):
    path = tmp_path_factory.mktemp("file") / "some.jsonl"
    path.write_bytes(b"".join(line(whole, episode=str(place)) for place, whole in enumerate(wholes)))
    found = list(recorded(path))
    assert [each.episode for each in found] == [str(place) for place in range(len(wholes))]
    assert bits([asdict(each.trajectory) for each in found]) == bits([asdict(whole) for whole in wholes])


@given(st.lists(TRAJECTORIES, max_size=2), st.lists(TEXT, max_size=2), TASKS)
def test_a_group_comes_back_with_its_failures(trajectories, reasons, task):
    failures = tuple(Failed(task, reason, "g") for reason in reasons)
    found = group_of(json.loads(json.dumps(group_row(Group(task, tuple(trajectories), failures)))))
    assert found.task == task
    assert found.failures == failures
    assert bits([asdict(each) for each in found.trajectories]) == bits([asdict(each) for each in trajectories])


def test_numbers_of_an_array_are_numbers():
    measured = {"share": np.float32(0.1), "count": np.int64(3)}
    found = trajectory_of(json.loads(line(trajectory(measured=measured))))
    assert found.measured == {"share": float(np.float32(0.1)), "count": 3}


def test_a_task_with_tuples_is_the_same_task_with_lists():
    task = replace(TASK, data={"answer": "!", "board": ((1, 2), (3, 4))})
    found = group_of(group_row(Group(task, (), ()))).task
    assert found.data["board"] == [[1, 2], [3, 4]]
    assert found.id == task.id


@pytest.mark.parametrize("bad", [{1, 2}, float("nan")])
def test_a_task_that_is_not_json_is_named(bad):
    task = replace(TASK, data={"answer": "!", "extra": bad})
    with pytest.raises(DataError, match=f"task {task.id} of test holds what is not JSON"):
        group_row(Group(task, (), ()))


@pytest.mark.parametrize("row", [{}, {"task": {"prompt": [], "data": {}}}, {"task": None}])
def test_a_row_that_is_no_group_is_refused(row):
    with pytest.raises(DataError, match="a replayed group cannot be read"):
        group_of(row)


@pytest.mark.parametrize(
    "changes",
    [
        {"turns": []},
        {"turns": None},
        {"turns": [{}]},
        {"messages": ["hello"]},
        {"messages": [{"role": "user", "content": "hi", "tool_calls": [], "tool_call_id": "", "name": "x"}]},
        {"components": 3},
        {"measured": {"share": "much"}},
        {"task": "sums"},
    ],
    ids=json.dumps,
)
def test_a_row_that_is_no_trajectory_is_refused(changes):
    with pytest.raises(DataError, match="a trajectory cannot be read"):
        trajectory_of({**trajectory_row(trajectory()), **changes})


def test_tokens_are_whole_numbers():
    row = trajectory_row(trajectory())
    row["turns"][0]["completion"]["tokens"] = ["5"]
    with pytest.raises(DataError, match="tokens are whole numbers"):
        trajectory_of(row)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"{]\n", "some.jsonl:2: is not JSON"),
        (b"[]\n", "some.jsonl:2: is no trajectory, for its schema is not fettle.trajectory"),
        (b'{"messages": []}\n', "some.jsonl:2: is no trajectory"),
        (line(trajectory()).replace(b'"version":1', b'"version":2'), "some.jsonl:2: is of version 2, and this reads 1"),
        (line(trajectory()).replace(b'"turns"', b'"turn"'), "some.jsonl:2: a trajectory cannot be read"),
    ],
)
def test_a_line_that_is_no_trajectory_is_named(tmp_path, text, says):
    path = tmp_path / "some.jsonl"
    path.write_bytes(line(trajectory()) + text)
    with pytest.raises(DataError, match=says):
        list(recorded(path))


def test_a_last_line_that_is_being_written_is_passed_over(tmp_path):
    path = tmp_path / "some.jsonl"
    path.write_bytes(line(trajectory()) + line(trajectory())[:-20])
    assert len(list(recorded(path))) == 1


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"none.jsonl cannot be read \(No such file or directory\)"):
        list(recorded(tmp_path / "none.jsonl"))


@pytest.mark.parametrize(
    ("wanted", "kept"),
    [
        (Wanted(), 4),
        (Wanted(min_reward=0.5), 2),
        (Wanted(max_reward=0.5), 3),
        (Wanted(min_reward=0.5, max_reward=0.5), 1),
        (Wanted(min_tokens=3), 1),
        (Wanted(max_tokens=2), 3),
        (Wanted(endings=frozenset({"finished"})), 3),
        (Wanted(endings=frozenset({"turns"})), 1),
        (Wanted(endings=frozenset({"finished", "turns"})), 4),
        (Wanted(min_reward=2.0), 0),
    ],
)
def test_what_is_wanted_is_counted_right(wanted, kept):
    some = [
        trajectory(reward=0.0),
        trajectory(reward=0.5),
        trajectory(reward=1.0, tokens=3),
        trajectory(reward=0.0, ending="turns"),
    ]
    assert sum(wanted.against(each) is None for each in some) == kept


def test_why_something_is_not_wanted_is_told():
    assert Wanted(min_reward=1.0).against(trajectory(reward=0.0)) == "earned too little"
    assert Wanted(endings=frozenset({"finished"})).against(trajectory(ending="turns")) == "ended otherwise"


CALLED = Message("assistant", "", (ToolCall("call_0_0", "add", '{"a": 2, "b": 3}'),))
TOLD = Message("tool", "5", tool_call_id="call_0_0")


def test_a_conversation_is_told_as_openai_has_it():
    row = conversation_row(trajectory(ASK, CALLED, TOLD, SAY, Message("user", "Thanks")))
    function = {"name": "add", "arguments": '{"a": 2, "b": 3}'}
    assert row == {
        "messages": [
            {"role": "user", "content": "What is 2 + 3?"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "call_0_0", "type": "function", "function": function}],
            },
            {"role": "tool", "content": "5", "tool_call_id": "call_0_0"},
            {"role": "assistant", "content": "It is 5."},
        ]
    }


@pytest.mark.parametrize(
    "silent",
    [
        Message("assistant", " "),
        Message("assistant", "", (ToolCall("call_0_0", "", "{oops"),)),
    ],
)
def test_what_says_nothing_is_told_to_nobody(silent):
    assert conversation_row(trajectory(ASK, silent, ASK, SAY)) is None
    assert episode_row(trajectory(ASK, silent, ASK, SAY)) is None


def test_what_is_told_can_be_learned_from(tmp_path):
    for name, row_of in (("talks", conversation_row), ("episodes", episode_row)):
        rows = [row_of(trajectory(ASK, SAY, reward=reward)) for reward in (0.25, 1.0)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert conversations(str(tmp_path / "talks.jsonl")) == [(ASK, SAY)] * 2
    assert [episode.reward for episode in episodes(str(tmp_path / "episodes.jsonl"))] == [0.25, 1.0]
    assert len(episodes(str(tmp_path / "episodes.jsonl"), min_reward=0.5)) == 1


def test_calls_of_tools_can_be_learned_from_too(tmp_path):
    path = tmp_path / "talks.jsonl"
    path.write_text(json.dumps(conversation_row(trajectory(ASK, CALLED, TOLD, SAY))) + "\n")
    assert conversations(str(path)) == [(ASK, CALLED, TOLD, SAY)]
