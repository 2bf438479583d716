"""JSON Lines files: rows, each with the place where it stands, and the messages they hold."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from fettle.errors import DataError
from fettle.types import Message

ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True, slots=True)
class Row:
    """One JSON object of a file."""

    place: str
    """``file:line``, for messages to people."""
    fields: Mapping[str, Any]

    def text(self, name: str) -> str:
        """The field ``name``, which must be a text with something in it.

        Raises:
            DataError: it is missing, empty or something else.
        """
        return _text(self.fields.get(name), name, self.place)

    def messages(self) -> tuple[Message, ...]:
        """The field ``messages``: a list of objects with a ``role`` and a ``content``, and nothing else.

        Raises:
            DataError: it is not that.
        """
        given = self.fields.get("messages")
        if not isinstance(given, list) or not given:
            raise DataError(f"{self.place}: messages must be a list of objects with a role and a content")
        found = tuple(_message(item, f"messages[{index}]", self.place) for index, item in enumerate(given))
        if any(message.role == "system" for message in found[1:]):
            raise DataError(f"{self.place}: a system message must come first")
        return found


def rows(path: str) -> Iterator[Row]:
    """The objects of a JSON Lines file in order; blank lines are passed over.

    Raises:
        DataError: the file cannot be read, or a line is not one JSON object in UTF-8.
    """
    try:
        # Binary, because text mode would also end a line at characters that may stand inside a JSON string.
        with Path(path).open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield Row(f"{path}:{number}", _fields(line, f"{path}:{number}"))
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): give the path of a JSON Lines file") from error


def _fields(line: bytes, place: str) -> Mapping[str, Any]:
    try:
        value = json.loads(line.decode("utf-8-sig"), parse_constant=_refused)
    except UnicodeDecodeError as error:
        raise DataError(f"{place}: not UTF-8 at byte {error.start}: save the file as UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place}: not JSON ({error}): each line must be one JSON object") from error
    if not isinstance(value, dict):
        raise DataError(f"{place}: holds a {type(value).__name__}: each line must be one JSON object")
    return value


def _refused(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON number")


def _message(item: object, name: str, place: str) -> Message:
    if not isinstance(item, dict):
        raise DataError(f"{place}: {name} must be an object with a role and a content")
    role = item.get("role")
    if role not in ROLES:
        raise DataError(f"{place}: {name}.role is {role!r}: use one of {', '.join(ROLES)}")
    if extra := sorted(item.keys() - {"role", "content"}):
        raise DataError(
            f"{place}: {name} has {', '.join(extra)}, which nothing here reads: leave role and content only"
        )
    return Message(role, _text(item.get("content"), f"{name}.content", place))


def _text(value: object, name: str, place: str) -> str:
    if not isinstance(value, str) or not value.strip():
        what = "missing" if value is None else "empty" if isinstance(value, str) else f"a {type(value).__name__}"
        raise DataError(f"{place}: {name} is {what}: it must be a text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{place}: {name} holds half a surrogate pair at character {error.start}: remove it") from error
    return value
