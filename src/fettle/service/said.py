"""What requests say: read, checked, and described."""

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from fastapi import Query, Request
from pydantic import BaseModel, ConfigDict, ValidationError

from fettle.config.document import Document
from fettle.config.explain import sentences
from fettle.errors import DataError
from fettle.frames import MEDIA_TYPE, Tree
from fettle.service.wire import JSON, made_of, tree_reader

Wait = Annotated[float, Query(ge=0, le=60, description="Seconds to wait for the result before answering without it.")]
Limit = Annotated[int, Query(ge=1, le=1000)]
Offset = Annotated[int, Query(ge=0, le=1_000_000_000)]


class Body(BaseModel):
    """What a request says. Unknown fields are errors, and nothing is read from what it is not."""

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        arbitrary_types_allowed=True,
    )


Said = TypeVar("Said", bound=BaseModel)


async def said(request: Request, kind: type[Said]) -> Said:
    """The body as a ``kind``.

    Raises:
        DataError: it is none, or cannot be read.
    """
    read = tree_reader(request)
    return await made_of(request, lambda body: checked(read(body), kind))


def checked(tree: Tree, kind: type[Said]) -> Said:
    """A tree as a ``kind``.

    Raises:
        DataError: it is none.
    """
    if not isinstance(tree, Mapping):
        raise DataError(f"the body must be a mapping of {', '.join(kind.model_fields)}, not a {type(tree).__name__}")
    try:
        return kind.model_validate(dict(tree))
    except ValidationError as error:
        wrong = sentences(error, kind, Document(dict(tree), {(): "the body"}))
        raise DataError("; ".join(wrong)) from error


def described(kind: type[BaseModel], **examples: Tree) -> dict[str, Any]:
    """How the OpenAPI document tells of a body."""
    schema = kind.model_json_schema()
    plain = {"schema": _without_references(schema, schema.get("$defs", {}))}
    if examples:
        plain["examples"] = {name: {"value": value} for name, value in examples.items()}
    frame = {"schema": {"type": "string", "format": "binary", "description": "The same, as a frame."}}
    return {"requestBody": {"required": True, "content": {JSON: plain, MEDIA_TYPE: frame}}}


def _without_references(node: Any, definitions: Mapping[str, Any]) -> Any:
    """A schema that stands alone."""
    if isinstance(node, list):
        return [_without_references(item, definitions) for item in node]
    if not isinstance(node, Mapping):
        return node
    if "$ref" in node:
        inner = definitions[node["$ref"].rpartition("/")[2]]
        return _without_references({**inner, **{k: v for k, v in node.items() if k != "$ref"}}, definitions)
    return {key: _without_references(value, definitions) for key, value in node.items() if key != "$defs"}
