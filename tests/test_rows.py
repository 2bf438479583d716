import pytest

from fettle.errors import DataError
from fettle.rows import rows
from fettle.types import Message


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
