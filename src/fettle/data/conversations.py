"""Conversations to learn from: JSON Lines with ``messages``, or with ``prompt`` and ``completion``."""

from fettle.errors import DataError
from fettle.rows import Row, rows
from fettle.types import Message

Conversation = tuple[Message, ...]
"""Messages of which the last is the assistant's."""


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
    return messages
