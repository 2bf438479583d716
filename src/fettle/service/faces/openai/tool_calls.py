"""Calls of tools, found in what a model says in the form that its own chat template writes them."""

import json
import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

NAME, KEY, VALUE = "marked_function", "marked_key", "marked value"
QUESTION = {"role": "user", "content": "A question"}
CALL = {"id": "call00001", "type": "function", "function": {"name": NAME, "arguments": {KEY: VALUE}}}
CALLING = {"role": "assistant", "content": "", "tool_calls": [CALL]}
SCHEMA = {"type": "object", "properties": {KEY: {"type": "string"}}}
TOOL = {"type": "function", "function": {"name": NAME, "description": "A function", "parameters": SCHEMA}}
ARGUMENTS = ("arguments", "parameters")
"""What templates call them."""
BETWEEN = re.compile(r"[\s,;\[\]]*")
"""What may stand between two calls besides the marks around each."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call: its function, and its arguments as JSON."""

    id: str
    name: str
    arguments: str


class ToolFormat:
    """How a model's template writes a call: a JSON object of name and arguments after ``mark``, then an end.

    Without a mark the whole reply is the object.
    """

    def __init__(self, mark: str, end: str) -> None:
        self.mark = mark
        self._around = [part for part in (mark, end) if part]

    def calls(self, text: str) -> tuple[str, list[ToolCall]]:
        """What is said before the calls, and the calls; what cannot be read as calls is all said."""
        said, mark, rest = text.partition(self.mark) if self.mark else ("", "", text)
        if self.mark and not mark:
            return text, []
        try:
            found = list(_objects(rest, self._around))
        except ValueError:
            return text, []
        return (said, found) if found else (text, [])


def tool_format(tokenizer: PreTrainedTokenizerBase) -> ToolFormat | None:
    """The form of the calls, cut out of a fixed conversation; None where it is not a JSON object."""
    try:
        opening = _text(tokenizer, [QUESTION], generation_prompt=True)
        whole = _text(tokenizer, [QUESTION, CALLING], generation_prompt=False)
    except (TemplateError, TypeError):
        return None
    if not whole.startswith(opening):
        return None
    said = whole[len(opening) :]
    found = _marked_object(said)
    if found is None:
        return None
    begin, end = found
    after = said[end:]
    for special in tokenizer.all_special_tokens:  # the end of a turn is no part of a call
        after = after.replace(special, " ")
    head, tail = said[:begin].rstrip().rstrip("[").split(), after.strip().lstrip("]").split()
    return ToolFormat(head[-1] if head else "", tail[0] if head and tail else "")


def takes_tools(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the template writes anything about tools."""
    try:
        return NAME in _text(tokenizer, [QUESTION], generation_prompt=True)
    except (TemplateError, TypeError):
        return False


def _text(tokenizer: PreTrainedTokenizerBase, rows: Sequence[dict[str, Any]], *, generation_prompt: bool) -> str:
    text: str = tokenizer.apply_chat_template(
        list(rows), tools=[TOOL], tokenize=False, add_generation_prompt=generation_prompt
    )
    return text


def _marked_object(said: str) -> tuple[int, int] | None:
    """From where to where the marked call stands as a JSON object."""
    for begin in (match.start() for match in re.finditer(r"\{", said)):
        try:
            value, end = json.JSONDecoder().raw_decode(said, begin)
        except ValueError:
            continue
        if isinstance(value, dict) and value.get("name") == NAME and any(name in value for name in ARGUMENTS):
            return begin, end
    return None


def _objects(text: str, around: Sequence[str]) -> Iterator[ToolCall]:
    """Every call in a text of nothing but calls.

    Raises:
        ValueError: there is something else.
    """
    at = _skipped(text, 0, around)
    while at < len(text):
        value, at = json.JSONDecoder().raw_decode(text, at)
        yield _call(value)
        at = _skipped(text, at, around)


def _skipped(text: str, at: int, around: Sequence[str]) -> int:
    while True:
        found = BETWEEN.match(text, at)
        at = found.end() if found else at
        mark = next((part for part in around if text.startswith(part, at)), "")
        if not mark:
            return at
        at += len(mark)


def _call(value: object) -> ToolCall:
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise ValueError("this is no call")
    given = (value[name] for name in ARGUMENTS if isinstance(value.get(name), dict))
    arguments: dict[str, Any] = next(given, {})
    return ToolCall(f"call_{secrets.token_hex(12)}", value["name"], json.dumps(arguments, ensure_ascii=False))
