import json

import pytest

from fettle.data import conversations, split, tools_of
from fettle.errors import DataError
from fettle.types import Message, ToolSpec


def written(tmp_path, *rows) -> str:
    path = tmp_path / "talk.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_both_forms_are_read(tmp_path):
    turns = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "good day"}]
    path = written(tmp_path, {"messages": turns}, {"prompt": "hello", "completion": "good day", "source": "by hand"})
    first, second = conversations(path)
    assert first == second == (Message("user", "hello"), Message("assistant", "good day"))


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"prompt": "hello"}, "completion is missing"),
        ({"completion": "hello"}, "prompt is missing"),
        ({"prompt": "hello", "completion": ""}, "completion is empty"),
        ({"text": "hello"}, "give either messages, or prompt and completion"),
        ({"prompt": "a", "completion": "b", "messages": []}, "give either messages, or prompt and completion"),
        ({"messages": [{"role": "bot", "content": "x"}]}, r"messages\[0\].role is 'bot'"),
        ({"messages": [{"role": "user", "content": "x"}]}, "the last message is the user's"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "the assistant answers nothing"),
    ],
)
def test_a_malformed_row_is_named(tmp_path, row, why):
    path = written(tmp_path, {"prompt": "hello", "completion": "good day"}, row)
    with pytest.raises(DataError, match=why) as caught:
        conversations(path)
    assert caught.value.message.startswith(f"{path}:2: ")


def test_an_empty_file_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"talk.jsonl is empty"):
        conversations(written(tmp_path))


def test_tools_stand_beside_the_conversation_in_which_they_are_offered(tmp_path):
    turns = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "good day"}]
    offered = [{"type": "function", "function": {"name": "greet", "description": "Greets."}}]
    other = [{"role": "user", "content": "bye"}, turns[1]]
    path = written(tmp_path, {"messages": turns, "tools": offered}, {"messages": other})
    spec = ToolSpec("greet", "Greets.", '{"type": "object", "properties": {}}')
    assert [tools_of(talk) for talk in conversations(path)] == [(spec,), ()]
    training, heldout = split(conversations(path), heldout=1, seed=0)
    assert {tools_of(talk) for talk in (*training, *heldout)} == {(spec,), ()}
