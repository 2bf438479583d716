"""Answers with calls of tools, as OpenAI's own types read them."""

import json

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from fettle.service.faces.openai.answers import Answer
from fettle.service.faces.openai.bodies import ChatBody
from fettle.service.faces.openai.forms import ChatForm
from fettle.service.faces.openai.speaker import Speaker
from fettle.types import Completion

TOOLS = [{"type": "function", "function": {"name": name}} for name in ("look_up", "add")]
CALLS = [{"name": "look_up", "arguments": {"word": "é"}}, {"name": "add", "arguments": {"a": 2}}]


@pytest.fixture
def form(tool_model) -> ChatForm:
    messages = [{"role": "user", "content": "what?"}]
    return ChatForm(ChatBody.model_validate({"model": "m", "messages": messages, "tools": TOOLS}), Speaker(tool_model))


@pytest.fixture
def completion(tool_model) -> Completion:
    said = "Let me." + "".join(f"\n<tool_call>\n{json.dumps(call)}\n</tool_call>" for call in CALLS)
    tokens = [*tool_model.tokens_of(said), tool_model.tokenizer.eos_token_id]
    return Completion(tokens, [-1.0] * len(tokens), "stop", 0)


def test_a_whole_answer_has_its_calls(form, completion):
    said = Answer(form, model="m", fingerprint="fp_1", prompt_tokens=7).whole([completion])
    answer = ChatCompletion.model_validate(said, strict=True)
    [choice] = answer.choices
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", "Let me.\n")
    assert [json.loads(call.function.arguments) for call in choice.message.tool_calls] == [
        call["arguments"] for call in CALLS
    ]
    assert answer.usage.completion_tokens == len(completion.tokens)


def test_a_stream_brings_them_whole_at_its_end(form, completion):
    choice = form.choice(0)
    pieces = [form.opening(0)]
    pieces += [form.piece(0, text) for token in completion.tokens if (text := choice.add(token))]
    pieces += form.closing(0, choice.ended(completion), completion)
    head = {"id": "chatcmpl-1", "created": 1, "model": "m", "object": form.chunk_kind}
    chunks = [ChatCompletionChunk.model_validate({**head, "choices": [piece]}) for piece in pieces]
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert "".join(delta.content or "" for delta in deltas) == "Let me.\n"
    [calls] = [delta.tool_calls for delta in deltas if delta.tool_calls]
    assert [(call.index, call.function.name) for call in calls] == [(0, "look_up"), (1, "add")]
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
