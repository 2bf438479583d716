"""What a row asks and what is replied to it: texts, or messages as chat datasets write them."""

from collections.abc import Sequence

from fettle.errors import DataError
from fettle.rows import Row
from fettle.types import Message

Prompt = tuple[Message, ...]


def prompt(row: Row) -> Prompt:
    """The field ``prompt``: a text that the user says, or messages of which the assistant's is not the last.

    Raises:
        DataError: it is neither.
    """
    if not isinstance(row.fields.get("prompt"), list):
        return (Message("user", row.text("prompt")),)
    messages = row.messages("prompt")
    if messages[-1].role == "assistant":
        raise DataError(
            f"{row.place}: the prompt ends with the assistant's message: end it with what is to be answered"
        )
    return messages


def reply(row: Row, name: str, asked: Prompt) -> str:
    """The field ``name``: a text, the assistant's one message, or ``asked`` with that message after it.

    Raises:
        DataError: it is none of them, or says nothing.
    """
    if not isinstance(row.fields.get(name), list):
        return row.text(name)
    messages = row.messages(name)
    said = messages[len(asked) :] if messages[: len(asked)] == asked else messages
    if [message.role for message in said] != ["assistant"]:
        raise DataError(f"{row.place}: {name} must be one message of the assistant, alone or after the prompt")
    return said[0].content


def shared_prompt(row: Row, names: Sequence[str]) -> Prompt:
    """What whole conversations in the fields ``names`` all ask before their last message.

    Raises:
        DataError: a field holds no conversation, or they do not ask the same.
    """
    asked = [row.messages(name)[:-1] for name in names]
    if not asked[0]:
        raise DataError(f"{row.place}: prompt is missing, and {names[0]} begins with the reply: give what is answered")
    if any(one != asked[0] for one in asked[1:]):
        raise DataError(f"{row.place}: {' and '.join(names)} must be the same but for their last message")
    return asked[0]
