"""Episodes in a run's folder: they come back as they were, and are found by what they earned and what was said."""

import json

import pytest

from fettle.errors import DataError
from fettle.tracking import RunFolder, Search, Transcript, read_transcripts, write_transcripts
from fettle.types import Message, ToolCall

ASK = Message("user", "What is 2 + 3?")
CALL = Message("assistant", "Let me see.", (ToolCall("call_0_0", "add", '{"a": 2}'),))
TOLD = Message("tool", "5", tool_call_id="call_0_0")
WHOLE = Transcript("4f2a", (ASK, CALL, TOLD), 0.75, {"right": 1.0, "long": -0.25}, "expected: 5", "turns", "pro", "g/1")
PLAIN = Transcript("77aa", (ASK, Message("assistant", "Five")), 1.0, {})


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    return RunFolder.at(tmp_path / "run")


def test_episodes_come_back_in_the_order_of_their_evaluations(folder):
    write_transcripts(folder, 20, [WHOLE])
    write_transcripts(folder, 0, [PLAIN, WHOLE])
    assert list(read_transcripts(folder)) == [(0, PLAIN), (0, WHOLE), (20, WHOLE)]


def test_a_run_that_was_never_evaluated_has_none(folder):
    assert list(read_transcripts(folder)) == []


@pytest.mark.parametrize("line", ["{", "[]", '{"task": "a"}', '{"task": "a", "messages": [1]}'])
def test_a_line_that_is_no_episode_is_named(folder, line):
    write_transcripts(folder, 5, [PLAIN])
    path = folder.evaluations / "step-000005.jsonl"
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(DataError, match=r"step-000005\.jsonl:2: is no episode"):
        list(read_transcripts(folder))


def test_what_is_written_can_be_read_by_anybody(folder):
    write_transcripts(folder, 0, [WHOLE])
    row = json.loads((folder.evaluations / "step-000000.jsonl").read_text())
    assert (row["task"], row["reward"], row["ending"], row["player"]) == ("4f2a", 0.75, "turns", "pro")
    assert row["messages"][1]["tool_calls"] == [{"id": "call_0_0", "name": "add", "arguments": '{"a": 2}'}]


@pytest.mark.parametrize(
    ("search", "found"),
    [
        (Search(), [WHOLE, PLAIN]),
        (Search(min_reward=1.0), [PLAIN]),
        (Search(max_reward=0.75), [WHOLE]),
        (Search(min_reward=0.8, max_reward=0.9), []),
        (Search(text="five"), [PLAIN]),
        (Search(text="WHAT IS"), [WHOLE, PLAIN]),
        (Search(text='"a": 2'), [WHOLE]),
        (Search(text="turns"), [WHOLE]),
        (Search(text="pro"), [WHOLE]),
        (Search(text="77AA"), [PLAIN]),
        (Search(text="nobody said"), []),
    ],
    ids=str,
)
def test_episodes_are_found(search, found):
    assert [each for each in (WHOLE, PLAIN) if search.finds(each)] == found
