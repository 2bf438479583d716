import pytest

from fettle.errors import DataError
from fettle.rows import Row, rows
from fettle.types import Message, ToolCall, ToolSpec


def written(tmp_path, content: bytes):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    return str(path)


def test_a_row_knows_its_place_and_blank_lines_count(tmp_path):
    path = written(tmp_path, b'{"a": 1}\n\n{"a": 2}')
    assert [(row.place, row.fields) for row in rows(path)] == [(f"{path}:1", {"a": 1}), (f"{path}:3", {"a": 2})]


def test_a_line_separator_inside_a_text_does_not_end_the_row(tmp_path):
    path = written(tmp_path, '{"a": "one\u2028two\x85three"}\n'.encode())
    assert [row.fields["a"] for row in rows(path)] == ["one\u2028two\x85three"]


def test_a_byte_order_mark_is_no_part_of_the_row(tmp_path):
    assert [row.fields for row in rows(written(tmp_path, b'\xef\xbb\xbf{"a": 1}'))] == [{"a": 1}]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"{'a': 1}", "not JSON"),
        (b'{"a": 1', "not JSON"),
        (b'{"a": NaN}', "NaN is no JSON number"),
        (b"[" * 100_000, "not JSON"),
        (b'["a"]', "holds a list"),
        (b'{"a": "\xff"}', "not UTF-8 at byte 7"),
    ],
)
def test_a_malformed_line_is_named(tmp_path, line, why):
    path = written(tmp_path, b'{"a": 1}\n' + line)
    with pytest.raises(DataError, match=why) as caught:
        list(rows(path))
    assert caught.value.message.startswith(f"{path}:2: ")


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone.jsonl cannot be read \(No such file"):
        list(rows(str(tmp_path / "gone.jsonl")))


def test_messages_keep_their_order_and_roles(tmp_path):
    line = b'{"messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}]}'
    (row,) = rows(written(tmp_path, line))
    assert row.messages() == (Message("system", "be brief"), Message("user", "hello"))


@pytest.mark.parametrize(
    ("messages", "why"),
    [
        (b'"hello"', "messages must be a list"),
        (b"[]", "messages must be a list"),
        (b'["hello"]', r"messages\[0\] must be an object"),
        (b'[{"role": "User", "content": "x"}]', r"messages\[0\].role is 'User': use one of system, user"),
        (b'[{"role": "user"}]', r"messages\[0\].content is missing"),
        (b'[{"role": "user", "content": " "}]', r"messages\[0\].content is empty"),
        (b'[{"role": "user", "content": ["x"]}]', r"messages\[0\].content is a list"),
        (b'[{"role": "user", "content": "\\ud800"}]', "half a surrogate pair at character 0"),
        (b'[{"role": "user", "content": "x", "tool_calls": []}]', r"messages\[0\] has tool_calls"),
        (b'[{"role": "user", "content": "x"}, {"role": "system", "content": "y"}]', "a system message must come first"),
    ],
)
def test_malformed_messages_are_named(tmp_path, messages, why):
    (row,) = rows(written(tmp_path, b'{"messages": ' + messages + b"}"))
    with pytest.raises(DataError, match=why) as caught:
        row.messages()
    assert caught.value.message.startswith(row.place)


def test_a_file_may_be_one_list_of_objects(tmp_path):
    path = written(tmp_path, b'\xef\xbb\xbf\n [{"a": 1},\n {"a": 2}]\n')
    assert [(row.place, row.fields["a"]) for row in rows(path)] == [(f"{path}[0]", 1), (f"{path}[1]", 2)]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b'[{"a": 1}, 2]', r"rows\.jsonl\[1\]: holds a int: each item must be one JSON object"),
        (b'[{"a": 1}', r"rows\.jsonl: not JSON .*it begins as a JSON list, and must be one"),
        (b'["a"]\n{"a": 1}', r"rows\.jsonl: not JSON"),
    ],
)
def test_a_malformed_list_is_named(tmp_path, content, why):
    with pytest.raises(DataError, match=why):
        list(rows(written(tmp_path, content)))


CALLED = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
OFFERED = {"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": {"type": "object"}}}


def with_calls(**changes) -> dict:
    messages = [
        {"role": "user", "content": "1 + 1?"},
        {"role": "assistant", "content": None, "tool_calls": [{**CALLED, **changes}]},
        {"role": "tool", "content": "", "tool_call_id": "call_1"},
        {"role": "assistant", "content": "2"},
    ]
    return {"messages": messages, "tools": [OFFERED]}


def test_calls_and_tools_are_read_as_the_openai_api_has_them():
    row = Row("here", with_calls())
    _, calling, result, _ = row.messages()
    assert calling.tool_calls == (ToolCall("call_1", "add", '{"a": 1}'),)
    assert (calling.content, result.content, result.tool_call_id) == ("", "", "call_1")
    assert row.tools() == (ToolSpec("add", "Adds.", '{"type": "object"}'),)


def test_arguments_may_be_an_object():
    row = Row("here", with_calls(function={"name": "add", "arguments": {"a": "é"}}))
    assert row.messages()[1].tool_calls[0].arguments == '{"a": "é"}'


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"id": ""}, r"tool_calls\[0\]\.id is empty"),
        ({"id": "other"}, "answers the call 'call_1', which nobody made before"),
        ({"function": {"arguments": "{}"}}, r"function\.name is missing"),
        ({"function": {"name": "add", "arguments": "[1]"}}, "arguments must be a JSON object"),
        ({"function": {"name": "add", "arguments": "{"}}, "not JSON"),
        ({"function": {"name": "add", "arguments": "\ud800"}}, "surrogate"),
        ({"function": {"name": "add"}}, "must be a JSON object"),
        ({"type": "custom"}, "must be an object with a function"),
    ],
)
def test_calls_that_are_none_are_named(changes, why):
    with pytest.raises(DataError, match=why):
        Row("here", with_calls(**changes)).messages()


@pytest.mark.parametrize(
    ("tools", "why"),
    [
        ({}, "tools must be a list"),
        ([{"name": "add"}], r"tools\[0\] must be an object with a function"),
        ([{"function": {"name": ""}}], "name is empty"),
        ([{"function": {"name": "add", "parameters": []}}], "must be a JSON schema"),
        ([{"function": {"name": "add", "description": 3}}], "description must be a text"),
    ],
)
def test_tools_that_are_none_are_named(tools, why):
    with pytest.raises(DataError, match=why):
        Row("here", {"tools": tools}).tools()
