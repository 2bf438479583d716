"""Calls of tools, read in the form in which each model's template writes them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fettle.chat.tool_calls import ToolFormat, takes_tools, tool_format

CALLS = [("look_up", {"word": "fettle"}), ("add", {"a": 2, "b": {"c": "}"}})]
BROKEN = [
    '<tool_call>\n{"name": "look_up", "arguments": {"word"',
    "<tool_call>\nlook_up\n</tool_call>",
    '<tool_call>\n{"arguments": {}}\n</tool_call>',
    '<tool_call>{"name": "look_up", "arguments": [1]}</tool_call>',
    '<tool_call>{"name": "look_up", "arguments": {"a": NaN}}</tool_call>',
    '<tool_call>{"name": "look_up", "arguments": {"a": "\\ud800"}}</tool_call>',
    '<tool_call>{"name": "look_up", "arguments": {"a": ' + "[" * 100_000,
    '<tool_call>{"name": "look_up", "arguments": {"a": ' + "1" * 10_000 + "}}</tool_call>",
    "<tool_call>",
]


def said(call: tuple[str, dict], key: str = "arguments") -> str:
    return json.dumps({"name": call[0], key: call[1]})


@pytest.fixture(scope="module")
def form(tokenizers) -> ToolFormat:
    return tool_format(tokenizers("marked"))


@pytest.mark.parametrize(
    ("name", "text", "before", "count"),
    [
        ("marked", f"Let me.\n<tool_call>\n{said(CALLS[0])}\n</tool_call>", "Let me.\n", 1),
        ("marked", "".join(f"<tool_call>\n{said(call)}\n</tool_call>\n" for call in CALLS), "", 2),
        ("strict", f"[TOOL_CALLS] [{said(CALLS[0])}, {said(CALLS[1])}]", "", 2),
        ("bare", said(CALLS[0], "parameters"), "", 1),
    ],
)
def test_calls_are_read_as_the_template_writes_them(tokenizers, name, text, before, count):
    content, calls = tool_format(tokenizers(name)).calls(text, "call_3")
    assert content == before
    assert [(call.name, json.loads(call.arguments)) for call in calls] == CALLS[:count]
    assert [call.id for call in calls] == ["call_3_0", "call_3_1"][:count]


def test_calls_are_read_as_the_openai_api_writes_them(form):
    call = {"id": "x", "type": "function", "function": {"name": "look_up", "arguments": '{"word": "fettle"}'}}
    [found] = form.calls(f"<tool_call>{json.dumps(call)}</tool_call>", "call_0")[1]
    assert (found.name, json.loads(found.arguments)) == CALLS[0]


@pytest.mark.parametrize("text", ["no call at all", *BROKEN], ids=range(len(BROKEN) + 1))
def test_what_is_no_call_is_said_as_it_stands(form, text):
    assert form.calls(text, "call") == (text, [])


@pytest.mark.parametrize("text", BROKEN, ids=range(len(BROKEN)))
def test_an_attempt_that_is_no_call_has_no_name_and_keeps_what_was_written(form, text):
    content, [call] = form.attempts(f"Well. {text}", "call_2")
    assert (content, call.id, call.name) == ("Well. ", "call_2_0", "")
    assert call.arguments in text


def test_the_neighbours_of_a_broken_call_are_calls(form):
    text = f"<tool_call>{said(CALLS[0])}</tool_call><tool_call>oops</tool_call><tool_call>{said(CALLS[1])}</tool_call>"
    assert [call.name for call in form.attempts(text, "call")[1]] == ["look_up", "", "add"]
    assert form.calls(text, "call") == (text, [])


def test_a_mark_inside_an_argument_begins_no_call(form):
    call = ("look_up", {"word": "<tool_call>{}</tool_call>"})
    [found] = form.attempts(f"<tool_call>{said(call)}</tool_call>", "call")[1]
    assert json.loads(found.arguments) == call[1]


def test_prose_without_a_mark_is_no_attempt(tokenizers):
    text = '{"name": "look_up", "parameters": {}} and more'
    assert tool_format(tokenizers("bare")).attempts(text, "call") == (text, [])


PIECES = [
    "<tool_call>",
    "</tool_call>",
    "[",
    "]",
    "{",
    "}",
    '"name"',
    ":",
    '"arguments"',
    '"x"',
    ",",
    "1e999",
    "\\ud800",
]


@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=30).map("".join))
def test_any_text_can_be_read(form, text):
    content, calls = form.attempts(text, "call")
    assert text.startswith(content)
    assert all(isinstance(json.loads(call.arguments), dict) for call in calls if call.name)


@pytest.mark.parametrize("name", ["chatml", "instruct"])
def test_a_template_that_knows_no_tools_has_no_form_for_them(tokenizers, name):
    assert not takes_tools(tokenizers(name))
    assert tool_format(tokenizers(name)) is None
