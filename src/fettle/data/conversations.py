"""Conversations to learn from: JSON Lines with ``messages``, or with ``prompt`` and ``completion``."""

from collections.abc import Iterable, Sequence
from typing import Self

from fettle.errors import DataError
from fettle.rows import Row, rows
from fettle.types import Message, ToolSpec

Conversation = tuple[Message, ...]
"""Messages of which the last is the assistant's."""


class ToolConversation(Conversation):
    """A conversation in which tools are offered."""

    tools: tuple[ToolSpec, ...]

    def __new__(cls, messages: Iterable[Message], tools: Iterable[ToolSpec]) -> Self:
        """``messages``, in which ``tools`` may be called."""
        made = super().__new__(cls, messages)
        made.tools = tuple(tools)
        return made


def tools_of(conversation: Sequence[Message]) -> tuple[ToolSpec, ...]:
    """What may be called in a conversation."""
    return conversation.tools if isinstance(conversation, ToolConversation) else ()


def conversations(path: str) -> list[Conversation]:
    """The conversations of a file, in order.

    Raises:
        DataError: a line is malformed, or does not end with the assistant; or there are none.
    """
    found = [_conversation(row) for row in rows(path)]
    if not found:
        raise DataError(f"{path} is empty: give one conversation a line")
    return found


def _conversation(row: Row) -> Conversation:
    pair = "prompt" in row.fields or "completion" in row.fields
    if pair == ("messages" in row.fields):
        raise DataError(f"{row.place}: give either messages, or prompt and completion")
    if pair:
        return Message("user", row.text("prompt")), Message("assistant", row.text("completion"))
    messages = row.messages()
    if messages[-1].role != "assistant":
        role = messages[-1].role
        raise DataError(f"{row.place}: the last message is the {role}'s: end with what the assistant should say")
    if len(messages) == 1:
        raise DataError(f"{row.place}: the assistant answers nothing: put a user message before it")
    return ToolConversation(messages, row.tools()) if "tools" in row.fields else messages
