"""Files of JSON objects: rows, each with the place where it stands, and the messages they hold."""

import json
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, NoReturn

from fettle.errors import DataError, did_you_mean
from fettle.types import Message, ToolCall, ToolSpec

ROLES = ("system", "user", "assistant", "tool")
OWN: Mapping[str, frozenset[str]] = MappingProxyType(
    {"assistant": frozenset({"tool_calls"}), "tool": frozenset({"tool_call_id"})}
)
"""What messages of a role may have besides."""


@dataclass(frozen=True, slots=True)
class Row:
    """One JSON object of a file."""

    place: str
    """``file:line``, or ``file[index]`` in a list, for messages to people."""
    fields: Mapping[str, Any]

    def text(self, name: str) -> str:
        """The field ``name``, which must be a text with something in it.

        Raises:
            DataError: it is missing, empty or something else.
        """
        return _text(self.fields.get(name), name, self.place)

    def messages(self, name: str = "messages") -> tuple[Message, ...]:
        """The field ``name``: objects with a ``role`` and a ``content``, and calls of tools and their results.

        Those are as the OpenAI API has them: the assistant's ``tool_calls``, and a tool's ``tool_call_id``.

        Raises:
            DataError: it is not that.
        """
        given = self.fields.get(name)
        if not isinstance(given, list) or not given:
            raise DataError(f"{self.place}: {name} must be a list of objects with a role and a content")
        found = tuple(_message(item, f"{name}[{index}]", self.place) for index, item in enumerate(given))
        if any(message.role == "system" for message in found[1:]):
            raise DataError(f"{self.place}: a system message must come first")
        called: set[str] = set()
        for index, message in enumerate(found):
            called.update(call.id for call in message.tool_calls)
            if message.tool_call_id and message.tool_call_id not in called:
                raise DataError(
                    f"{self.place}: {name}[{index}] answers the call {message.tool_call_id!r}, which nobody made before"
                )
        return found

    def tools(self, name: str = "tools") -> tuple[ToolSpec, ...]:
        """The field ``name``: a list of functions as the OpenAI API describes them.

        Raises:
            DataError: it is not that.
        """
        given = self.fields.get(name)
        if not isinstance(given, list):
            raise DataError(f"{self.place}: {name} must be a list of objects with type and function")
        return tuple(_tool(item, f"{name}[{index}]", self.place) for index, item in enumerate(given))

    def number(self, name: str) -> float:
        """The field ``name``, which must be a finite number.

        Raises:
            DataError: it is missing or something else.
        """
        return _number(self.fields.get(name), name, self.place)

    def numbers(self, name: str) -> tuple[float, ...]:
        """The field ``name``: a list of finite numbers.

        Raises:
            DataError: it is not that.
        """
        given = self.fields.get(name)
        if not isinstance(given, list):
            raise DataError(f"{self.place}: {name} must be a list of numbers")
        return tuple(_number(value, f"{name}[{index}]", self.place) for index, value in enumerate(given))

    def check_keys(self, known: Collection[str]) -> None:
        """Refuse fields of other names.

        Raises:
            DataError: there is one.
        """
        for name in self.fields:
            if name not in known:
                hint = did_you_mean(name, known) or f": use {', '.join(known)}"
                raise DataError(f"{self.place}: nothing here reads {name}{hint}")


def rows(path: str) -> Iterator[Row]:
    """The objects of a JSON Lines file in order; blank lines are passed over. A file may also be one JSON list of them.

    Raises:
        DataError: the file cannot be read, or it holds something else than JSON objects in UTF-8.
    """
    try:
        # Binary, because text mode would also end a line at characters that may stand inside a JSON string.
        with Path(path).open("rb") as file:
            yield from _items(file, path) if _begins_a_list(file) else _lines(file, path)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): give the path of a JSON Lines file") from error


def openai_message(message: Message) -> dict[str, Any]:
    """A message as OpenAI's API has it."""
    row: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        row["content"] = message.content or None
        row["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    return row | ({"tool_call_id": message.tool_call_id} if message.tool_call_id else {})


def _begins_a_list(file: BinaryIO) -> bool:
    lines = (line.lstrip(b"\xef\xbb\xbf \t\r\n") for line in file)
    first = next(filter(None, lines), b"")
    file.seek(0)
    return first.startswith(b"[")


def _lines(file: BinaryIO, path: str) -> Iterator[Row]:
    for number, line in enumerate(file, start=1):
        if line.strip():
            place = f"{path}:{number}"
            yield Row(place, _object(_parsed(line, place, "each line must be one JSON object"), place, "each line"))


def _items(file: BinaryIO, path: str) -> Iterator[Row]:
    for index, item in enumerate(_parsed(file.read(), path, "it begins as a JSON list, and must be one")):
        place = f"{path}[{index}]"
        yield Row(place, _object(item, place, "each item"))


def _object(value: object, place: str, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"{place}: holds a {type(value).__name__}: {what} must be one JSON object")
    return value


def _parsed(text: bytes, place: str, mend: str) -> Any:
    try:
        return json.loads(text.decode("utf-8-sig"), parse_constant=no_number)
    except UnicodeDecodeError as error:
        raise DataError(f"{place}: not UTF-8 at byte {error.start}: save the file as UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place}: not JSON ({error}): {mend}") from error


def no_number(constant: str) -> NoReturn:
    """What a reader of JSON does with ``NaN`` and the like.

    Raises:
        ValueError: always.
    """
    raise ValueError(f"{constant} is no JSON number")


def _message(item: object, name: str, place: str) -> Message:
    if not isinstance(item, dict):
        raise DataError(f"{place}: {name} must be an object with a role and a content")
    role = item.get("role")
    if role not in ROLES:
        raise DataError(f"{place}: {name}.role is {role!r}: use one of {', '.join(ROLES)}")
    if extra := sorted(item.keys() - {"role", "content"} - OWN.get(role, frozenset())):
        raise DataError(
            f"{place}: {name} has {', '.join(extra)}, which nothing here reads: leave role and content only"
        )
    calls = _calls(item["tool_calls"], f"{name}.tool_calls", place) if item.get("tool_calls") else ()
    answered = _text(item["tool_call_id"], f"{name}.tool_call_id", place) if "tool_call_id" in item else ""
    content = item.get("content")
    # A call needs no words beside it, and a tool may have nothing to say.
    quiet = (calls and content in (None, "")) or (role == "tool" and content == "")
    return Message(role, "" if quiet else _text(content, f"{name}.content", place), calls, answered)


def _calls(given: object, name: str, place: str) -> tuple[ToolCall, ...]:
    if not isinstance(given, list):
        raise DataError(f"{place}: {name} must be a list of objects with an id and a function")
    return tuple(_call(item, f"{name}[{index}]", place) for index, item in enumerate(given))


def _call(item: object, name: str, place: str) -> ToolCall:
    function = _function(item, name, place)
    arguments = function.get("arguments")
    written = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    if not isinstance(
        _parsed(
            _text(written, f"{name}.function.arguments", place).encode(),
            f"{place}: {name}.function.arguments",
            "write an object",
        ),
        dict,
    ):
        raise DataError(f"{place}: {name}.function.arguments must be a JSON object, or a text that holds one")
    identity = _text(item.get("id") if isinstance(item, dict) else None, f"{name}.id", place)
    return ToolCall(identity, _text(function.get("name"), f"{name}.function.name", place), written)


def _tool(item: object, name: str, place: str) -> ToolSpec:
    function = _function(item, name, place)
    schema = function.get("parameters", {"type": "object", "properties": {}})
    if not isinstance(schema, dict):
        raise DataError(f"{place}: {name}.function.parameters must be a JSON schema, an object")
    described = function.get("description", "")
    if not isinstance(described, str):
        raise DataError(f"{place}: {name}.function.description must be a text")
    called = _text(function.get("name"), f"{name}.function.name", place)
    return ToolSpec(called, described, json.dumps(schema, ensure_ascii=False))


def _function(item: object, name: str, place: str) -> Mapping[str, Any]:
    function = item.get("function") if isinstance(item, dict) and item.get("type", "function") == "function" else None
    if not isinstance(function, dict):
        raise DataError(f"{place}: {name} must be an object with a function that has a name")
    return function


def _number(value: object, name: str, place: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        what = "missing" if value is None else f"a {type(value).__name__}"
        raise DataError(f"{place}: {name} is {what}: it must be a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise DataError(f"{place}: {name} is {number}: it must be a finite number")
    return number


def _text(value: object, name: str, place: str) -> str:
    if not isinstance(value, str) or not value.strip():
        what = "missing" if value is None else "empty" if isinstance(value, str) else f"a {type(value).__name__}"
        raise DataError(f"{place}: {name} is {what}: it must be a text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{place}: {name} holds half a surrogate pair at character {error.start}: remove it") from error
    return value
