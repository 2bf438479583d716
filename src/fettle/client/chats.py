"""A model behind an endpoint that speaks OpenAI's chat completions: messages go in and come out, and no tokens."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import httpx

from fettle.client.transport import AGAIN, WITHOUT_CODE, repeated, verification
from fettle.config import SamplingParams
from fettle.engine import ReadRequest
from fettle.engine.base import Pooling
from fettle.errors import ConfigError, ContextError, DataError, FettleError, ModelError, UnreachableError
from fettle.rows import openai_message
from fettle.types import Completion, Floats, Message, PromptReading, StopReason, ToolCall, ToolSpec, Trajectory, Turn

AT_ONCE = 32
"""Requests that are with the endpoint at the same time."""

PATIENCE = 120.0
"""Seconds for which a request is repeated that was not answered."""

ANSWERING = 600.0
SHOWN = 200  # characters of an answer that an error shows

TOO_LONG = frozenset({"context_length_exceeded", ContextError.code})
"""What endpoints call a conversation that leaves no room for an answer."""

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Reply:
    """What was answered."""

    message: Message
    stop_reason: StopReason
    tokens: int


class ChatEndpoint:
    """Satisfies ``Sampler``, and is its own template.

    Loops hand tokens from the one to the other. Here these are numbers of messages, which mean nothing elsewhere:
    ``told`` takes them out of a trajectory.

    Raises:
        ConfigError: the address is none.
    """

    policy_version = 0
    end_token_ids: frozenset[int] = frozenset()

    def __init__(self, url: str, model: str, key: str | None = None, *, patience: float = PATIENCE) -> None:
        if not url.startswith(("http://", "https://")):
            raise ConfigError(f"{url!r} is no address of an endpoint: give one such as http://127.0.0.1:8700/v1")
        self.url, self.model = url.rstrip("/"), model
        self.drawn = 0
        """Tokens that the endpoint says it drew."""
        self._patience = patience
        self._numbers: dict[object, int] = {}
        self._said: list[object] = []
        self._room = asyncio.Semaphore(AT_ONCE)
        self._http = httpx.AsyncClient(
            headers={} if key is None else {"Authorization": f"Bearer {key}"},
            timeout=httpx.Timeout(ANSWERING, connect=10.0, pool=None),
            verify=verification(self.url),
        )

    async def close(self) -> None:
        """End the connections."""
        await self._http.aclose()

    # --- as a template ----------------------------------------------------------------------------

    def prompt(self, messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> list[int]:
        """The numbers of the tools and of the messages."""
        return list(map(self._number, (*tools, *messages)))

    def continuation(self, sampled: Sequence[int], new: Sequence[Message]) -> list[int]:
        """The numbers of what is new; nothing need be said to end a reply."""
        return list(map(self._number, new))

    def reply(self, sampled: Sequence[int], *_: object, **__: object) -> Message:
        """What was answered."""
        found = self._said[sampled[0]]
        assert isinstance(found, _Reply), "only replies are sampled"
        return found.message

    def told(self, trajectory: Trajectory) -> Trajectory:
        """The trajectory without tokens, of which an endpoint tells none.

        Nor does it tell by what a reply was cut: that is taken to be the limit that it was asked to keep.
        """
        turns = tuple(
            Turn([], Completion([], [], turn.completion.stop_reason, self.policy_version), turn.reward)
            for turn in trajectory.turns
        )
        cut = trajectory.ending == "context" and turns[-1].completion.stop_reason == "length"
        return replace(trajectory, turns=turns, ending="tokens" if cut else trajectory.ending)

    # --- as a sampler -----------------------------------------------------------------------------

    async def sample(self, prompt: Sequence[int], n: int, params: SamplingParams) -> list[Completion]:
        """Answers to a conversation.

        Raises:
            ContextError: the conversation leaves no room for one.
            UnreachableError: nobody answered for as long as there is patience.
            FettleError: the endpoint refused.
        """
        body = self._asked([self._said[number] for number in prompt], params)
        replies = await asyncio.gather(
            *(self._answered({**body, "seed": (params.seed + member) % 2**31}) for member in range(n))
        )
        return [Completion([self._number(each)], [0.0], each.stop_reason, self.policy_version) for each in replies]

    async def logprobs(self, tokens: Sequence[int], *, temperature: float = 1.0) -> list[float | None]:
        """Refused."""
        raise self._speechless("log-probabilities")

    async def score(self, tokens: Sequence[int]) -> float:
        """Refused."""
        raise self._speechless("scores")

    async def read(self, request: ReadRequest) -> PromptReading:
        """Refused."""
        raise self._speechless("log-probabilities")

    async def embed(self, tokens: Sequence[int], *, layer: int = -1, pooling: Pooling = "mean") -> Floats:
        """Refused."""
        raise self._speechless("states")

    def _speechless(self, what: str) -> ModelError:
        return ModelError(
            f"{self.model} at {self.url} is asked by messages, and tells no {what}: name a model's folder"
        )

    def _number(self, said: object) -> int:
        if said not in self._numbers:
            self._numbers[said] = len(self._said)
            self._said.append(said)
        return self._numbers[said]

    def _asked(self, said: Sequence[object], params: SamplingParams) -> Json:
        heard = [each.message if isinstance(each, _Reply) else each for each in said]
        body: Json = {
            "model": self.model,
            "messages": [openai_message(each) for each in heard if isinstance(each, Message)],
            "max_tokens": params.max_tokens,
            "temperature": params.temperature,
            "top_p": params.top_p,
        }
        if tools := [_offered(each) for each in heard if isinstance(each, ToolSpec)]:
            body["tools"] = tools
        return {**body, "stop": list(params.stop)} if params.stop else body

    async def _answered(self, body: Json) -> _Reply:
        async with self._room:
            reply = _reply(await self._posted(body), self.url)
        self.drawn += reply.tokens
        return reply

    async def _posted(self, body: Json) -> Json:
        response = await repeated(
            lambda: self._http.post(f"{self.url}/chat/completions", json=body), self.url, patience=self._patience
        )
        if response.is_success:
            return _object(response)
        raise _refusal(response)


def _offered(tool: ToolSpec) -> Json:
    function = {"name": tool.name, "description": tool.description, "parameters": json.loads(tool.schema)}
    return {"type": "function", "function": function}


def _reply(answer: Json, url: str) -> _Reply:
    """
    Raises:
        DataError: it is something else than a chat completion.
    """
    try:
        choice = answer["choices"][0]
        said = choice["message"]
        calls = tuple(
            ToolCall(str(call["id"]), str(call["function"]["name"]), str(call["function"]["arguments"]))
            for call in said.get("tool_calls") or ()
        )
        used = (answer.get("usage") or {}).get("completion_tokens") or 0
        cut: StopReason = "length" if choice.get("finish_reason") == "length" else "stop"
        return _Reply(Message("assistant", str(said.get("content") or ""), calls), cut, int(used))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{url} answered with something else than a chat completion ({error!r}): is it one?") from error


def _object(response: httpx.Response) -> Json:
    try:
        found = response.json()
    except ValueError as error:
        raise DataError(
            f"{response.request.url} answered with no JSON: is it an OpenAI-compatible endpoint?"
        ) from error
    return found if isinstance(found, dict) else {}


def _refusal(response: httpx.Response) -> FettleError:
    """What an answer means that is none."""
    try:
        told: Mapping[str, Any] = response.json()["error"]
        code, said = str(told.get("code")), str(told.get("message"))
    except (ValueError, KeyError, TypeError, AttributeError):
        code, said = "", response.text.strip().replace("\n", " ") or "nothing"
    kinds: dict[int, type[FettleError]] = {**WITHOUT_CODE, **dict.fromkeys(AGAIN, UnreachableError)}
    kind = ContextError if code in TOO_LONG else kinds.get(response.status_code, ModelError)
    return kind(f"{response.request.url} answered {response.status_code}: {said[:SHOWN]}")
