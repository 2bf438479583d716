"""What crosses the wire: our nouns as messages of ``fettle.environment.v1``, and back without loss."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

from fettle.environments.base import Observation, StepResult
from fettle.environments.remote import environment_pb2 as pb
from fettle.environments.remote.refusals import Refusal
from fettle.types import Message, ToolCall, ToolSpec

ENVIRONMENTS = "fettle.environment.v1.EnvironmentService"
MODEL = "fettle.environment.v1.ModelService"

PROTOCOL = "1"
"""Which version of the protocol this is; callers of another are told so."""
PROTOCOL_KEY = "fettle-protocol"
RETRY_KEY = "fettle-retry-after-ms"
FAULT_KEY = "fettle-fault"
FRAMING = 64
"""Bytes that a frame adds to what it carries, at most."""
"""Names in a call's metadata."""

Role = Literal["system", "user", "assistant", "tool"]
SPLITS: Mapping[str, "pb.Split"] = {"training": pb.SPLIT_TRAINING, "heldout": pb.SPLIT_HELDOUT}


def message_out(message: Message) -> pb.Message:
    """A message for the wire. What is no Unicode text (half a surrogate pair) becomes a replacement character."""
    return pb.Message(
        role=message.role,
        content=_text(message.content),
        tool_calls=[
            pb.ToolCall(id=_text(call.id), name=_text(call.name), arguments=_text(call.arguments))
            for call in message.tool_calls
        ],
        tool_call_id=_text(message.tool_call_id),
    )


def message_in(message: pb.Message) -> Message:
    """A message from the wire.

    Raises:
        Refusal: nobody has that role.
    """
    role = message.role
    if role not in get_args(Role):
        known = ", ".join(get_args(Role))
        raise Refusal(pb.FAULT_CODE_INVALID, f"a message has the role {role[:40]!r}: roles are {known}")
    calls = tuple(ToolCall(call.id, call.name, call.arguments) for call in message.tool_calls)
    return Message(role, message.content, calls, message.tool_call_id)  # type: ignore[arg-type]  # checked above


def messages_in(messages: Iterable[pb.Message]) -> tuple[Message, ...]:
    """Messages from the wire."""
    return tuple(map(message_in, messages))


def observation_out(observation: Observation) -> pb.Observation:
    """An observation for the wire."""
    return pb.Observation(
        messages=map(message_out, observation.messages),
        one_reply=observation.one_reply,
        tools=[pb.Tool(name=t.name, description=_text(t.description), schema=t.schema) for t in observation.tools],
    )


def observation_in(observation: pb.Observation) -> Observation:
    """An observation from the wire."""
    tools = tuple(ToolSpec(tool.name, tool.description, tool.schema) for tool in observation.tools)
    return Observation(messages_in(observation.messages), one_reply=observation.one_reply, tools=tools)


def step_out(result: StepResult) -> pb.StepResponse:
    """What came of a step, for the wire."""
    return pb.StepResponse(
        messages=map(message_out, result.messages),
        reward=result.reward,
        components=_measures(result.components),
        terminated=result.terminated,
        truncated=result.truncated,
        measured=_measures(result.measured),
    )


def step_in(response: pb.StepResponse) -> StepResult:
    """What came of a step, from the wire."""
    return StepResult(
        messages_in(response.messages),
        response.reward,
        terminated=response.terminated,
        truncated=response.truncated,
        components={each.name: each.value for each in response.components},
        measured={each.name: each.value for each in response.measured},
    )


def chosen(environment: str, settings: Mapping[str, Any]) -> pb.Chosen:
    """An environment with settings laid over the server's."""
    return pb.Chosen(
        environment_id=environment, settings=json.dumps(dict(settings), sort_keys=True).encode() if settings else b""
    )


def settings_in(given: pb.Chosen) -> dict[str, Any]:
    """The settings that a client has chosen.

    Raises:
        Refusal: they are no JSON object.
    """
    try:
        found = json.loads(given.settings or b"{}")
    except (ValueError, RecursionError) as error:
        raise Refusal(pb.FAULT_CODE_INVALID, f"settings are no JSON: {error}") from error
    if not isinstance(found, dict):
        raise Refusal(pb.FAULT_CODE_INVALID, 'settings are no JSON object: send one, such as {"digits": 2}')
    return found


def prompt_digest(prompt: Sequence[Message]) -> bytes:
    """By which both sides know that they mean the same task; it says nothing of the answer."""
    return hashlib.sha256(b"".join(_framed(message_out(message)) for message in prompt)).digest()


def _framed(message: pb.Message) -> bytes:
    text = message.SerializeToString(deterministic=True)
    return len(text).to_bytes(8, "big") + text


def _measures(values: Mapping[str, float]) -> list[pb.Measure]:
    return [pb.Measure(name=name, value=value) for name, value in values.items()]


def _text(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
