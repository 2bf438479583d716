"""Tiny models: their own tokenizer and template, with a place for tools."""

import pytest

from fettle.chat import Template, load_tokenizer
from fettle.config import TinyModel
from fettle.engine.local import make_tiny_model, text_of
from fettle.engine.local.tiny import CALL_TAGS
from fettle.types import Message, ToolCall, ToolSpec

TINY = TinyModel(hidden=32, layers=1, heads=2, vocabulary=320)
SCHEMA = '{"type": "object", "properties": {"expression": {"type": "string"}, "digits": {"type": "integer"}}}'
CALCULATOR = ToolSpec("calculator", "Works out.", SCHEMA)
USER = Message("user", "What is 2 * 3 ?")
CALLING = Message("assistant", "", (ToolCall("call_0_0", "calculator", '{"expression": "2*3"}'),))
RESULT, ANSWER = Message("tool", "6", tool_call_id="call_0_0"), Message("assistant", "<answer>6</answer>")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    texts = [text_of(message) for message in (USER, CALLING, RESULT, ANSWER)] * 9
    return make_tiny_model(TINY, tmp_path_factory.mktemp("tiny"), texts=texts)


def test_tools_and_calls_have_a_place_in_the_template(folder):
    tokenizer = load_tokenizer(folder)
    tokens, mask = Template(tokenizer).conversation([USER, CALLING, RESULT, ANSWER], [CALCULATOR, CALCULATOR])
    call = '<tool_call>{"name":"calculator","arguments":{"expression":"2*3"}}</tool_call><|end|>'
    assert tokenizer.decode(tokens) == (
        "<|system|>calculator(expression, digits) calculator(expression, digits)<|end|>"
        f"<|user|>{USER.content}<|end|><|assistant|>{call}<|tool|>6<|end|><|assistant|>{ANSWER.content}<|end|>"
    )
    learned = tokenizer.decode([token for token, learn in zip(tokens, mask, strict=True) if learn])
    assert learned == f"{call}{ANSWER.content}<|end|>"


def test_a_call_that_was_drawn_is_read(folder):
    tokenizer = load_tokenizer(folder)
    drawn = tokenizer.encode(text_of(CALLING), add_special_tokens=False)
    assert Template(tokenizer).reply(drawn, [CALCULATOR], turn=0).tool_calls == CALLING.tool_calls


def test_the_tags_of_calls_have_tokens_only_where_there_are_calls(folder, tmp_path):
    plain = load_tokenizer(make_tiny_model(TINY, tmp_path, texts=[USER.content] * 9))
    with_calls = load_tokenizer(folder)
    assert [len(plain.encode(tag)) > 1 for tag in CALL_TAGS] == [True, True]
    assert [len(with_calls.encode(tag)) for tag in CALL_TAGS] == [1, 1]
