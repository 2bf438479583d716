"""Tools: what a policy may call, made of typed functions and of objects with such methods."""

import functools
import inspect
import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, PydanticUserError, ValidationError, create_model

from fettle.errors import ConfigError
from fettle.types import ToolSpec

Arguments = Mapping[str, Any]
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
POSITIONAL = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class ToolMistake(Exception):  # noqa: N818  it is the policy's, and no error of ours
    """What a policy did wrong in a call, in one sentence, which it is told."""


@dataclass(frozen=True, slots=True)
class Tool:
    """Something that may be called with arguments, and answers with a text.

    ``run`` raises ToolMistake where the arguments are wrong; whatever else it raises is the tool's own fault.

    Raises:
        ConfigError: its name is none that templates and services take.
    """

    spec: ToolSpec
    run: Callable[[Arguments], Awaitable[str]]

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.spec.name):
            raise ConfigError(
                f"a tool is named {self.spec.name!r}: use up to 64 letters, digits, underscores, dots and dashes"
            )

    @property
    def name(self) -> str:
        """What it is called by."""
        return self.spec.name


def tool(function: Callable[..., Any], name: str | None = None) -> Tool:
    """A tool that calls a function: its arguments are described by its types, and checked against them.

    A coroutine function is awaited; any other is called as it is, and should be quick. What is no text is told as JSON.

    >>> def double(number: int) -> int:
    ...     "Twice a number."
    ...     return 2 * number
    >>> tool(double).spec.schema
    '{"properties": {"number": {"type": "integer"}}, "required": ["number"], "type": "object"}'

    Raises:
        ConfigError: a parameter has no type, or one that JSON cannot hold; or the function is not described.
    """
    called = name or function.__name__
    model = _model(function, called)
    described = inspect.getdoc(function)
    if not described:
        raise ConfigError(f"the tool {called} has no docstring, and a model is told of a tool by that: write one")
    schema = json.dumps(_plain(model.model_json_schema()), sort_keys=True)
    spec = ToolSpec(called, described.split("\n\n")[0].replace("\n", " "), schema)
    return Tool(spec, functools.partial(_called, function, model))


def tools_of(holder: object) -> list[Tool]:
    """A tool for each public method of an object, in the order they are written in."""
    methods = [name for name in vars(type(holder)) if not name.startswith("_")]
    return [tool(getattr(holder, name)) for name in methods if inspect.isroutine(getattr(holder, name))]


def check_names(tools: Sequence[Tool]) -> None:
    """Refuses two tools of one name.

    Raises:
        ConfigError: there are such.
    """
    seen: set[str] = set()
    for one in tools:
        if one.name in seen:
            raise ConfigError(f"two tools are called {one.name}: leave one of them out, or rename it")
        seen.add(one.name)


def _model(function: Callable[..., Any], name: str) -> type[BaseModel]:
    try:
        hints = get_type_hints(function, include_extras=True)
        parameters = inspect.signature(function).parameters.values()
        fields: dict[str, Any] = {}
        for parameter in parameters:
            if parameter.kind not in POSITIONAL or parameter.name not in hints:
                raise ConfigError(
                    f"the tool {name} has a parameter {parameter} without a name and a type: give it both"
                )
            default = ... if parameter.default is inspect.Parameter.empty else parameter.default
            fields[parameter.name] = (hints[parameter.name], default)
        model: type[BaseModel] = create_model(name, __config__=ConfigDict(extra="forbid", strict=True), **fields)
        model.model_json_schema()
    except (NameError, PydanticUserError) as error:
        what = str(error).splitlines()[0]
        raise ConfigError(f"the tool {name} has a parameter that JSON cannot hold ({what}): use plain types") from error
    return model


async def _called(function: Callable[..., Any], model: type[BaseModel], arguments: Arguments) -> str:
    try:
        # As JSON, where a list may stand for a tuple.
        checked = model.model_validate_json(json.dumps(dict(arguments)))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "the arguments"
        raise ToolMistake(f"{place}: {first['msg'][:1].lower()}{first['msg'][1:]}") from error
    found = function(**{name: getattr(checked, name) for name in type(checked).model_fields})
    answer = await found if inspect.isawaitable(found) else found
    return answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)


def _plain(schema: Any) -> Any:
    """The schema without the titles that pydantic gives everything, which cost tokens and say nothing."""
    if isinstance(schema, list):
        return [_plain(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: value for key, value in schema.items() if not (key == "title" and isinstance(value, str))}
    kept.pop("additionalProperties", None)
    return {key: _plain(value) for key, value in kept.items()}
