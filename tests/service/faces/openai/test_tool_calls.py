"""Calls of tools, read in the form in which each model's template writes them."""

import json

import pytest

from fettle.service.faces.openai.tool_calls import takes_tools, tool_format
from tests.service.faces.openai.conftest import TOOLS_TEMPLATE

MARKED = TOOLS_TEMPLATE
LISTED = TOOLS_TEMPLATE.replace("\n<tool_call>\n", "[TOOL_CALLS] [").replace("\n</tool_call>", "]")
BARE = (
    TOOLS_TEMPLATE.replace("\n<tool_call>\n", "").replace("\n</tool_call>", "").replace('arguments":', 'parameters":')
)
CALLS = [("look_up", {"word": "fettle"}), ("add", {"a": 2, "b": {"c": "}"}})]


def said(call: tuple[str, dict], key: str = "arguments") -> str:
    return json.dumps({"name": call[0], key: call[1]})


@pytest.mark.parametrize(
    ("template", "text", "before", "count"),
    [
        (MARKED, f"Let me.\n<tool_call>\n{said(CALLS[0])}\n</tool_call>", "Let me.\n", 1),
        (MARKED, "".join(f"<tool_call>\n{said(call)}\n</tool_call>\n" for call in CALLS), "", 2),
        (LISTED, f"[TOOL_CALLS] [{said(CALLS[0])}, {said(CALLS[1])}]", "", 2),
        (BARE, said(CALLS[0], "parameters"), "", 1),
    ],
)
def test_calls_are_read_as_the_template_writes_them(tokenizer, template, text, before, count):
    tokenizer.chat_template = template
    content, calls = tool_format(tokenizer).calls(text)
    assert content == before
    assert [(call.name, json.loads(call.arguments)) for call in calls] == CALLS[:count]
    assert len({call.id for call in calls}) == count


@pytest.mark.parametrize(
    "text",
    [
        "no call at all",
        '<tool_call>\n{"name": "look_up", "arguments": {"word"',
        "<tool_call>\nlook_up\n</tool_call>",
        '<tool_call>\n{"arguments": {}}\n</tool_call>',
        "<tool_call>",
    ],
)
def test_what_is_no_call_is_said_as_it_stands(tokenizer, text):
    tokenizer.chat_template = MARKED
    assert tool_format(tokenizer).calls(text) == (text, [])


def test_a_template_that_knows_no_tools_has_no_form_for_them(tokenizer):
    assert not takes_tools(tokenizer)
    assert tool_format(tokenizer) is None
