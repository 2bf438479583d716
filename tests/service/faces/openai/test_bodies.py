"""What a request may say, and how a refusal names the field."""

import pytest
from pydantic import ValidationError

from fettle.service.faces.openai.bodies import ChatBody, CompletionBody

HELLO = [{"role": "user", "content": "hello"}]


def complete(**fields):
    return CompletionBody.model_validate({"model": "m", "prompt": "p", **fields})


def chat(**fields):
    return ChatBody.model_validate({"model": "m", "messages": HELLO, **fields})


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [("a", ["a"]), (["a", "b"], ["a", "b"]), ([1, 2], [[1, 2]]), ([[1], [2, 3]], [[1], [2, 3]])],
)
def test_a_prompt_is_one_or_several_texts_or_tokens(prompt, prompts):
    assert complete(prompt=prompt).prompts == prompts


@pytest.mark.parametrize(
    "fields",
    [
        {"user": "u", "metadata": {"a": "b"}, "store": True},
        {"frequency_penalty": 0, "presence_penalty": 0.0, "logit_bias": {}, "best_of": 1},
        {"n": None, "stop": None, "suffix": None, "seed": None, "temperature": None},
    ],
)
def test_what_asks_for_nothing_is_taken(fields):
    assert complete(**fields) == complete()


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"best_of": 3}, "best_of is not supported"),
        ({"frequency_penalty": 0.5}, "frequency_penalty is not supported"),
        ({"suffix": "end"}, "suffix is not supported"),
        ({"temprature": 1}, "did you mean temperature"),
        ({"prompt": [1, "a"]}, "prompt can be"),
        ({"prompt": []}, "prompt is empty"),
        ({"prompt": ["a"] * 1025}, "prompt can be"),
        ({"prompt": [[1]] * 1025}, "prompt can be"),
        ({"prompt": ["a"] * 33, "n": 128}, "n is 128 for 33 prompts"),
        ({"stop": ["a"] * 5}, "stop can be"),
        ({"stop": ""}, "stop can be"),
        ({"logprobs": 6}, "less than or equal to 5"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"stream_options": {"include_usage": True}}, "stream_options are for streams"),
    ],
)
def test_what_would_not_be_done_is_refused_by_name(fields, named):
    with pytest.raises(ValidationError, match=named):
        complete(**fields)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"response_format": {"type": "json_object"}}, "text"),
        ({"tool_choice": "required"}, "auto"),
        ({"parallel_tool_calls": False}, "parallel_tool_calls is not supported"),
        ({"top_logprobs": 3}, "goes with logprobs"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, "differ"),
        ({"messages": []}, "at least 1"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, "image_url"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "["}}]}]},
            "no JSON object",
        ),
    ],
)
def test_a_chat_names_what_it_would_not_do(fields, named):
    with pytest.raises(ValidationError, match=named):
        chat(**fields)


def test_a_message_may_be_given_back_as_it_was_answered():
    answered = {"role": "assistant", "content": "hi", "refusal": None, "annotations": [], "audio": None}
    [message] = chat(messages=[answered]).messages
    assert message.text == "hi"


def test_parts_of_a_text_are_joined():
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    assert chat(messages=[{"role": "user", "content": parts}]).messages[0].text == "one two"


def test_arguments_that_are_nested_too_deep_are_refused():
    called = {"id": "1", "type": "function", "function": {"name": "add", "arguments": "[" * 100_000}}
    with pytest.raises(ValidationError, match="arguments of a call of add") as caught:
        chat(messages=[{"role": "assistant", "tool_calls": [called]}])
    assert len(caught.value.errors()[0]["msg"]) < 500
