"""Conversations as chat templates write them: messages and tools in, text out."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from fettle.errors import DataError
from fettle.types import Message, ToolSpec

ID_LENGTH = 9
"""What some templates demand of the ids of calls, beside letters and digits."""


def written(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    tools: Sequence[ToolSpec] = (),
    *,
    generation_prompt: bool = False,
) -> str:
    """The text of a conversation, in which ``tools`` are offered.

    Raises:
        DataError: the template refuses it.
    """
    offered = {"tools": [_offered(tool) for tool in tools]} if tools else {}
    rows = [_row(message) for message in messages]
    try:
        try:
            return _applied(tokenizer, rows, offered, generation_prompt)
        except TemplateError:
            if not any(message.tool_calls or message.tool_call_id for message in messages):
                raise
            return _applied(tokenizer, [_with_short_ids(row) for row in rows], offered, generation_prompt)
    except (TemplateError, TypeError) as error:
        name = tokenizer.name_or_path or "this model"
        roles = ", ".join(message.role for message in messages)
        raise DataError(f"the chat template of {name} refuses a conversation of {roles}: {error}") from error


def _applied(
    tokenizer: PreTrainedTokenizerBase, rows: list[dict[str, Any]], offered: dict[str, Any], generation_prompt: bool
) -> str:
    text: str = tokenizer.apply_chat_template(rows, tokenize=False, add_generation_prompt=generation_prompt, **offered)
    return text


def _row(message: Message) -> dict[str, Any]:
    """A message as templates read it."""
    row: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        row["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": _read(call.arguments)}}
            for call in message.tool_calls
        ]
    return row | ({"tool_call_id": message.tool_call_id} if message.tool_call_id else {})


def _read(arguments: str) -> Any:
    """Arguments as templates want them; what is no JSON stays a text."""
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments


def _with_short_ids(row: dict[str, Any]) -> dict[str, Any]:
    """The row with ids of as many letters and digits as some templates demand, the same for the same id."""
    changed = dict(row)
    if "tool_calls" in row:
        changed["tool_calls"] = [call | {"id": _short(call["id"])} for call in row["tool_calls"]]
    if "tool_call_id" in row:
        changed["tool_call_id"] = _short(row["tool_call_id"])
    return changed


def _short(identity: str) -> str:
    return hashlib.sha256(identity.encode()).hexdigest()[:ID_LENGTH]


def _offered(tool: ToolSpec) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": json.loads(tool.schema)}
    return {"type": "function", "function": function}
