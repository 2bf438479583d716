"""A model asked by messages alone: of our own server, and of a scripted one where it must fail in a known way."""

import asyncio
import json

import pytest

from fettle.client.chats import AT_ONCE, ChatEndpoint
from fettle.config import Limits, SamplingParams
from fettle.environments import GameStep, Observation, StepResult
from fettle.errors import (
    AuthenticationError,
    ConfigError,
    ContextError,
    DataError,
    ModelError,
    NotFoundError,
    UnreachableError,
)
from fettle.rollouts import Seat, episode, match
from fettle.types import Message, Task, ToolCall, ToolSpec

TASK = Task((Message("system", "Be brief."), Message("user", "one two?")), {"answer": "3"}, "test")
PARAMS = SamplingParams(max_tokens=4, temperature=0.7, seed=5, stop=("!",))
TOOL = ToolSpec("add", "Adds", '{"type": "object", "properties": {}}')
CALL = ToolCall("call_a", "add", '{"a": 1}')
CALLED = {"id": "call_a", "type": "function"}


class Talk:
    """Three replies, the last of which is paid; the first may be a call, which is answered as calls are."""

    def __init__(self) -> None:
        self.heard: list[Message] = []

    async def reset(self, task: Task) -> Observation:
        return Observation(task.prompt, tools=(TOOL,))

    async def step(self, action: Message) -> StepResult:
        self.heard.append(action)
        if len(self.heard) == 3:
            return StepResult((), 1.0, True, False, {"solved": 1.0})
        answers = tuple(Message("tool", "3", tool_call_id=call.id) for call in action.tool_calls)
        return StepResult(answers or (Message("user", "go on"),), 0.0, False, False, {})

    async def close(self) -> None:
        pass


def said(content: str | None, *calls: ToolCall, reason: str = "stop") -> tuple[int, bytes, dict[str, str]]:
    made = [{"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}} for c in calls]
    message = {"role": "assistant", "content": content, **({"tool_calls": made} if made else {})}
    told = {"choices": [{"message": message, "finish_reason": reason}], "usage": {"completion_tokens": 7}}
    return 200, json.dumps(told).encode(), {"Content-Type": "application/json"}


def refused(status: int, code: str, **headers: str) -> tuple[int, bytes, dict[str, str]]:
    return status, json.dumps({"error": {"message": "no", "code": code}}).encode(), headers


async def played(chat: ChatEndpoint, environment: Talk | None = None):
    talk = environment or Talk()
    return await episode(TASK, talk, sampler=chat, template=chat, params=PARAMS, limits=Limits(turns=5), group="g")


async def test_episodes_are_played_with_our_own_server(served):
    chat = ChatEndpoint(f"{served.url}/v1", "tiny", served.key)
    try:
        found = chat.told(await played(chat))
        again = chat.told(await played(chat))
    finally:
        await chat.close()
    assert (found.reward, len(found.turns)) == (1.0, 3)
    assert [message.role for message in found.messages] == ["system", *["user", "assistant"] * 3]
    assert found.messages == again.messages  # the endpoint draws by the seed that it is given
    assert len({message.content for message in found.messages if message.role == "assistant"}) > 1
    assert found.tokens == []
    assert 6 < chat.drawn <= 24


async def test_the_whole_conversation_is_said_with_tools_and_calls(raw):
    answers = iter([said(None, CALL), said("It is 3."), said("Yes.")])
    raw.says = lambda asked: next(answers)
    chat = ChatEndpoint(f"{raw.url}/v1/", "gpt", "secret")
    found = await played(chat)
    await chat.close()
    assert [asked.path for asked in raw.asked] == ["/v1/chat/completions"] * 3
    assert {asked.headers["authorization"] for asked in raw.asked} == {"Bearer secret"}
    body = raw.asked[-1].tree
    function = {"name": "add", "arguments": '{"a": 1}'}
    assert body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "one two?"},
        {"role": "assistant", "content": None, "tool_calls": [{**CALLED, "function": function}]},
        {"role": "tool", "content": "3", "tool_call_id": "call_a"},
        {"role": "assistant", "content": "It is 3."},
        {"role": "user", "content": "go on"},
    ]
    assert body["tools"][0]["function"]["name"] == "add"
    assert (body["model"], body["max_tokens"], body["temperature"], body["stop"]) == ("gpt", 4, 0.7, ["!"])
    assert len({asked.tree["seed"] for asked in raw.asked}) == 3
    assert found.messages[2].tool_calls == (CALL,)
    assert chat.drawn == 21


async def test_a_reply_that_was_cut_is_truncated(raw):
    raw.says = lambda asked: said("and so", reason="length")
    chat = ChatEndpoint(f"{raw.url}/v1", "gpt")
    found = chat.told(await played(chat))
    await chat.close()
    assert (found.ending, found.truncated) == ("tokens", True)
    assert "authorization" not in raw.asked[0].headers


class Duel:
    """Two players speak at once, and the second is paid."""

    async def reset(self, task: Task):
        return {name: Observation((Message("user", f"you are {name}"),)) for name in ("a", "b")}, ("a", "b")

    async def step(self, actions) -> GameStep:
        return GameStep({}, (), {"b": {"won": 1.0}})

    async def close(self) -> None:
        pass


async def test_games_are_played_by_messages_too(raw):
    raw.says = lambda asked: said(asked.tree["messages"][0]["content"].upper())
    chat = ChatEndpoint(f"{raw.url}/v1", "gpt")
    seat = Seat(chat, chat, PARAMS)
    found = await match(TASK, Duel(), seats={"a": seat, "b": seat}, limits=Limits())
    await chat.close()
    assert {name: side.messages[-1].content for name, side in found.items()} == {"a": "YOU ARE A", "b": "YOU ARE B"}
    assert {name: side.reward for name, side in found.items()} == {"a": 0, "b": 1.0}


async def test_who_is_busy_is_asked_again(raw):
    answers = iter([refused(429, "rate_limit", **{"Retry-After": "0.01"}), refused(503, "x"), *[said("well")] * 3])
    raw.says = lambda asked: next(answers)
    chat = ChatEndpoint(f"{raw.url}/v1", "gpt")
    found = await played(chat)
    await chat.close()
    assert (found.reward, len(raw.asked)) == (1.0, 5)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (refused(401, "invalid_api_key"), AuthenticationError),
        (refused(404, "model_not_found"), NotFoundError),
        (refused(400, "context_length_exceeded"), ContextError),
        (refused(400, "invalid_value"), ModelError),
        (refused(429, "rate_limit"), UnreachableError),
        ((200, b"<html>", {}), DataError),
        ((200, b'{"choices": []}', {}), DataError),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_a_refusal_is_told_as_what_it_is(raw, answer, error):
    raw.says = lambda asked: answer
    chat = ChatEndpoint(f"{raw.url}/v1", "gpt", patience=0.1)
    with pytest.raises(error, match="/v1"):
        await played(chat)
    await chat.close()


async def test_our_own_server_refuses_as_openai_does(served):
    for model, key, error in (("tiny", "wrong", AuthenticationError), ("tinier", served.key, NotFoundError)):
        chat = ChatEndpoint(f"{served.url}/v1", model, key, patience=1.0)
        with pytest.raises(error):
            await played(chat)
        await chat.close()


async def test_a_conversation_that_fills_the_context_ends_there(served):
    class Endless(Talk):
        async def step(self, action: Message) -> StepResult:
            return StepResult((Message("user", "one two three " * 8),), 0.25, False, False, {"patience": 0.25})

    chat = ChatEndpoint(f"{served.url}/v1", "tiny", served.key, patience=5.0)
    talk = Endless()
    found = await episode(TASK, talk, sampler=chat, template=chat, params=PARAMS, limits=Limits(turns=30))
    await chat.close()
    assert found.ending == "context"
    assert found.reward > 0


async def test_nobody_there_is_told_after_a_while():
    chat = ChatEndpoint("http://127.0.0.1:9", "gpt", patience=0.1)
    with pytest.raises(UnreachableError, match=r"http://127.0.0.1:9 cannot be reached"):
        await played(chat)
    await chat.close()


async def test_no_more_are_asked_at_once_than_may_be(raw):
    here = most = 0

    async def counted(asked):
        nonlocal here, most
        here, most = here + 1, max(most, here + 1)
        await asyncio.sleep(0.005)
        here -= 1
        return said("well")

    raw.says = counted
    chat = ChatEndpoint(f"{raw.url}/v1", "gpt")
    await asyncio.gather(*(played(chat) for _ in range(2 * AT_ONCE)))
    await chat.close()
    assert 1 < most <= AT_ONCE


def test_an_address_must_be_one():
    with pytest.raises(ConfigError, match="'localhost' is no address of an endpoint"):
        ChatEndpoint("localhost", "gpt")


async def test_what_has_no_tokens_says_so():
    chat = ChatEndpoint("http://127.0.0.1:9", "gpt")
    with pytest.raises(ModelError, match="is asked by messages, and tells no log-probabilities"):
        await chat.logprobs([1])
    await chat.close()
