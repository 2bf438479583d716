"""Conversations with tools: what is sampled, heard and trained on is what the template writes."""

import json

import pytest

from fettle.errors import ModelError
from fettle.types import Message, ToolCall, ToolSpec

ADD = ToolSpec("add", "Adds two numbers.", '{"type": "object", "properties": {"a": {"type": "number"}}}')
USER = Message("user", "What is 1 + 2?")
CALL, OTHER = ToolCall("call_0_0", "add", '{"a": 1}'), ToolCall("call_0_1", "add", '{"a": 2}')
RESULT, SECOND = Message("tool", "3", tool_call_id="call_0_0"), Message("tool", "4", tool_call_id="call_0_1")
ANSWER = Message("assistant", "It is 3.")
KINDS = ("marked", "strict", "bare")


def called(*calls: ToolCall, content: str = "") -> Message:
    return Message("assistant", content, calls)


def spoken(tokenizer, kind: str, *calls: ToolCall) -> list[int]:
    """A reply as a model would draw it, with the token that ends it."""
    said = [json.dumps({"name": call.name, "arguments": json.loads(call.arguments)}) for call in calls]
    text = {
        "marked": "".join(f"\n<tool_call>\n{call}\n</tool_call>" for call in said) + "<|im_end|>",
        "strict": f"[TOOL_CALLS] [{', '.join(said)}]<|endoftext|>",
        "bare": said[0].replace("arguments", "parameters") + "<|im_end|>",
    }
    return tokenizer.encode(text[kind], add_special_tokens=False)


def rows(*messages: Message) -> list[dict]:
    """What a template is given; ids as the strict one demands them."""
    found = []
    for message in messages:
        calls = [
            {"id": "123456789", "function": {"name": c.name, "arguments": json.loads(c.arguments)}}
            for c in message.tool_calls
        ]
        found.append({"role": message.role, "content": message.content} | ({"tool_calls": calls} if calls else {}))
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_reply_has_its_calls_named_by_turn_and_number(tokenizers, templates, kind):
    count = 1 if kind == "bare" else 2
    reply = templates(kind).reply(spoken(tokenizers(kind), kind, CALL, OTHER), [ADD], turn=3)
    assert [(call.id, call.name) for call in reply.tool_calls] == [("call_3_0", "add"), ("call_3_1", "add")][:count]
    assert json.loads(reply.tool_calls[0].arguments) == {"a": 1}
    assert reply.content.strip() == ""


def test_without_tools_a_call_is_only_said(tokenizers, templates):
    reply = templates("marked").reply(spoken(tokenizers("marked"), "marked", CALL))
    assert not reply.tool_calls
    assert "tool_call" in reply.content


def test_a_broken_call_is_one_of_no_name(tokenizers, templates):
    tokens = tokenizers("strict").encode("[TOOL_CALLS] nonsense", add_special_tokens=False)
    [call] = templates("strict").reply(tokens, [ADD]).tool_calls
    assert (call.name, call.arguments.strip()) == ("", "nonsense")


@pytest.mark.parametrize(
    ("kind", "calls", "results"),
    [
        *((kind, [CALL], [RESULT]) for kind in KINDS),
        ("marked", [CALL, OTHER], [RESULT, SECOND]),
        ("strict", [CALL, OTHER], [RESULT, SECOND]),
    ],
)
def test_an_episode_with_calls_grows_into_what_the_template_writes(tokenizers, templates, kind, calls, results):
    template, tokenizer = templates(kind), tokenizers(kind)
    sampled = spoken(tokenizer, kind, *calls)
    grown = template.prompt([USER], [ADD]) + sampled + template.continuation(sampled, results)
    written = tokenizer.apply_chat_template(
        rows(USER, called(*calls), *results),
        tools=[{"type": "function", "function": {"name": ADD.name, "description": ADD.description,
                                                 "parameters": json.loads(ADD.schema)}}],
        tokenize=False,
        add_generation_prompt=True,
    )  # fmt: skip
    assert tokenizer.decode(grown) == written


@pytest.mark.parametrize("kind", KINDS)
def test_a_conversation_with_calls_is_what_an_episode_would_have_grown(tokenizers, templates, kind):
    template, tokenizer = templates(kind), tokenizers(kind)
    tokens, mask = template.conversation([USER, called(CALL), RESULT, ANSWER], [ADD])
    first = spoken(tokenizer, kind, CALL)
    begun = template.prompt([USER], [ADD]) + first + template.continuation(first, [RESULT])
    assert tokens[: len(begun)] == begun
    learned = tokenizer.decode([token for token, learn in zip(tokens, mask, strict=True) if learn])
    end = tokenizer.decode(first[-1:])
    assert learned.replace(" ", "") == f"{tokenizer.decode(first)}{ANSWER.content}{end}".replace(" ", "")


def test_what_is_said_beside_a_call_is_trained_on(tokenizers, templates):
    tokens, mask = templates("marked").conversation([USER, called(CALL, content="Let me see."), RESULT, ANSWER], [ADD])
    learned = tokenizers("marked").decode([token for token, learn in zip(tokens, mask, strict=True) if learn])
    assert learned.startswith("Let me see.\n<tool_call>")


def test_each_message_of_a_conversation_with_calls_owns_its_text(tokenizers, templates):
    tokens, owners = templates("marked").owners([USER, called(CALL), RESULT, ANSWER], [ADD])
    heard = tokenizers("marked").decode([token for token, owner in zip(tokens, owners, strict=True) if owner == 2])
    assert heard == "3<|im_end|>"


def test_a_template_without_tools_is_refused_where_there_are_some(templates):
    with pytest.raises(ModelError, match="takes no tools"):
        templates("chatml").prompt([USER], [ADD])


def test_a_control_token_in_what_is_said_of_a_tool_is_text(tokenizers, templates):
    end = tokenizers("marked").convert_tokens_to_ids("<|im_end|>")
    bad = ToolSpec("add", "Adds.<|im_end|>", '{"description": "<|im_end|>"}')
    plain = ToolSpec("add", "Adds.", '{"description": ""}')
    prompts = [templates("marked").prompt([USER], [tool]) for tool in (bad, plain)]
    assert prompts[0].count(end) == prompts[1].count(end)


def test_a_result_without_a_call_is_still_heard(tokenizers, templates):
    """A reply that could not be read is answered as a tool would, in whatever form the template has for that."""
    sampled = tokenizers("strict").encode("hm", add_special_tokens=False)
    text = tokenizers("strict").decode(templates("strict").continuation(sampled, [RESULT]))
    assert text == "<|endoftext|>[TOOL_RESULTS]3[/TOOL_RESULTS]"
