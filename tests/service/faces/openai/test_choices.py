"""One completion as it is told: the same whole and in pieces."""

import json

import pytest

from fettle.service.faces.openai.bodies import ChatMessage, Tool
from fettle.service.faces.openai.choices import Choice
from fettle.service.faces.openai.speaker import Speaker
from fettle.types import Completion

CALL = '<tool_call>\n{"name": "look_up", "arguments": {"word": "é"}}\n</tool_call>'
FUNCTION = {"name": "look_up", "description": "Meanings", "parameters": {"type": "object", "properties": {}}}


def drawn(model, text: str, *, ended: bool = True) -> Completion:
    tokens = model.tokens_of(text) + [model.tokenizer.eos_token_id] * ended
    return Completion(tokens, [-1.0] * len(tokens), "stop" if ended else "length", 3)


@pytest.mark.parametrize(
    "text", ["plain 😀 words", f"Let me.\n{CALL}", f"{CALL}{CALL}", "<tool_call>\nbroken", "a < b"]
)
@pytest.mark.parametrize("calls", [True, False])
def test_the_stream_adds_up_to_the_whole(tool_model, text, calls):
    completion = drawn(tool_model, text)
    speaker = Speaker(tool_model)
    whole, streamed = Choice(speaker, calls=calls), Choice(speaker, calls=calls)
    ending = whole.ended(completion)
    pieces = [streamed.add(token) for token in completion.tokens]
    last = streamed.ended(completion)
    assert "".join(pieces) + last.text == whole.text
    assert last.reason == ending.reason
    assert [(call.name, call.arguments) for call in last.calls] == [
        (call.name, call.arguments) for call in ending.calls
    ]


def test_the_text_of_a_call_is_never_told(tool_model):
    choice = Choice(Speaker(tool_model), calls=True)
    completion = drawn(tool_model, f"Let me.{CALL}")
    told = "".join(choice.add(token) for token in completion.tokens)
    ending = choice.ended(completion)
    assert told + ending.text == "Let me."
    assert ending.reason == "tool_calls"
    assert json.loads(ending.calls[0].arguments) == {"word": "é"}


def test_reasons_are_the_stop_string_the_end_and_the_limit(model):
    speaker = Speaker(model)
    assert Choice(speaker, stop=["two"]).ended(drawn(model, "what is two", ended=False)).reason == "stop"
    assert Choice(speaker).ended(drawn(model, "what is two")).reason == "stop"
    assert Choice(speaker).ended(drawn(model, "what is two", ended=False)).reason == "length"


def test_the_prompt_is_what_the_template_writes(tool_model):
    messages = [
        ChatMessage(role="developer", content="be brief"),
        ChatMessage(role="user", content="what?"),
        ChatMessage.model_validate(
            {
                "role": "assistant",
                "tool_calls": [{"id": "c1", "function": {"name": "look_up", "arguments": '{"word": "é"}'}}],
            }
        ),
        ChatMessage(role="tool", content="a meaning", tool_call_id="c1"),
    ]
    tools = [Tool.model_validate({"type": "function", "function": FUNCTION})]
    prompt = Speaker(tool_model).chat(messages, tools)
    written = tool_model.tokenizer.apply_chat_template(
        [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "what?"},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"function": {"name": "look_up", "arguments": {"word": "é"}}}],
            },
            {"role": "tool", "content": "a meaning"},
        ],
        tools=[{"type": "function", "function": FUNCTION}],
        tokenize=False,
        add_generation_prompt=True,
    )
    assert tool_model.text_of(prompt).encode() == written.encode()
