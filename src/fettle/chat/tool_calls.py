"""Calls of tools, found in what a model says in the form that its own chat template writes them."""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from fettle.rows import no_number
from fettle.types import ToolCall

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


DECODER = json.JSONDecoder(parse_constant=no_number)


class ToolFormat:
    """How a model's template writes a call: a JSON object of name and arguments after ``mark``, then an end.

    Without a mark the whole reply is the object.
    """

    def __init__(self, mark: str, end: str) -> None:
        self.mark = mark
        self.end = end
        self._around = [part for part in (mark, end) if part]

    def calls(self, text: str, ids: str) -> tuple[str, list[ToolCall]]:
        """What is said before the calls, and the calls; what cannot be read as calls is all said.

        The calls are named ``ids`` and their number.
        """
        said, found = self.attempts(text, ids)
        return (said, found) if all(call.name for call in found) else (text, [])

    def attempts(self, text: str, ids: str) -> tuple[str, list[ToolCall]]:
        """As :meth:`calls`, but what stands after a mark and is no call is one of no name, with what was written."""
        said, mark, rest = text.partition(self.mark) if self.mark else ("", "", text)
        if self.mark and not mark:
            return text, []
        found = [ToolCall(f"{ids}_{place}", *call) for place, call in enumerate(self._attempts(rest))]
        if not found and self.mark:
            found = [ToolCall(f"{ids}_0", "", rest)]
        return (said, found) if self.mark or (found and all(call.name for call in found)) else (text, [])

    def _attempts(self, text: str) -> Iterator[tuple[str, str]]:
        """Name and arguments of every call; no name, and what was written, where that is no call."""
        at = _skipped(text, 0, self._around)
        while at < len(text):
            begin = at
            try:
                value, at = DECODER.raw_decode(text, at)
                yield _call(value)
            except (ValueError, RecursionError):
                next_one = text.find(self.mark, begin) if self.mark else -1
                at = next_one if next_one >= 0 else len(text)
                yield "", text[begin:at]
            at = _skipped(text, at, self._around)


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
    after = said[end:].removesuffix(_closing(tokenizer))  # the end of a turn is no part of a call
    for special in tokenizer.all_special_tokens:
        after = after.replace(special, " ")
    head, tail = said[:begin].rstrip().rstrip("[").split(), after.strip().lstrip("]").split()
    return ToolFormat(head[-1] if head else "", tail[0] if head and tail else "")


def takes_tools(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the template writes anything about tools."""
    try:
        return NAME in _text(tokenizer, [QUESTION], generation_prompt=True)
    except (TemplateError, TypeError):
        return False


def _closing(tokenizer: PreTrainedTokenizerBase) -> str:
    """What stands after a reply that calls nothing."""
    reply = {"role": "assistant", "content": VALUE}
    return _text(tokenizer, [QUESTION, reply], generation_prompt=False).rpartition(VALUE)[2]


def _text(tokenizer: PreTrainedTokenizerBase, rows: Sequence[dict[str, Any]], *, generation_prompt: bool) -> str:
    text: str = tokenizer.apply_chat_template(
        list(rows), tools=[TOOL], tokenize=False, add_generation_prompt=generation_prompt
    )
    return text


def _marked_object(said: str) -> tuple[int, int] | None:
    """From where to where the marked call stands as a JSON object."""
    for begin in (match.start() for match in re.finditer(r"\{", said)):
        try:
            value, end = DECODER.raw_decode(said, begin)
        except ValueError:
            continue
        if isinstance(value, dict) and value.get("name") == NAME and any(name in value for name in ARGUMENTS):
            return begin, end
    return None


def _skipped(text: str, at: int, around: Sequence[str]) -> int:
    while True:
        found = BETWEEN.match(text, at)
        at = found.end() if found else at
        mark = next((part for part in around if text.startswith(part, at)), "")
        if not mark:
            return at
        at += len(mark)


def _call(value: object) -> tuple[str, str]:
    """Name and arguments of a call, as templates or as the OpenAI API write it.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, dict) and isinstance(value.get("function"), dict):
        value = value["function"]
    if not isinstance(value, dict) or not isinstance(value.get("name"), str) or not value["name"]:
        raise ValueError("this is no call")
    given = next((value[name] for name in ARGUMENTS if name in value), None) or {}
    arguments = DECODER.decode(given) if isinstance(given, str) else given
    if not isinstance(arguments, dict):
        raise ValueError("arguments have names")
    written = json.dumps(arguments, ensure_ascii=False)
    (value["name"] + written).encode()  # half a surrogate pair is no text, and its error is a ValueError
    return value["name"], written
