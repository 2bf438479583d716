"""Manifests, held against the schemas that clusters publish of InferenceService and RayJob: see ``crds/ORIGIN.md``."""

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fettle.errors import ConfigError, did_you_mean

CRDS = Path(__file__).parent / "crds"
LATER: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {"RayJob": {"backoffLimit": {"type": "integer", "format": "int32", "minimum": 0}}}
)
"""Fields of a ``spec`` that came after the schema was taken. KubeRay has this one since 1.2."""

TYPES: Mapping[str, tuple[type, ...]] = MappingProxyType(
    {
        "object": (dict,),
        "array": (list,),
        "string": (str,),
        "boolean": (bool,),
        "integer": (int,),
        "number": (int, float),
    }
)
BITS = {"int32": 32, "int64": 64}


def check_schema(manifest: Any, kind: str) -> None:
    """Refuse a manifest with a field that is missing, unknown or of another type.

    Raises:
        ConfigError: it has one; each is named by its path.
    """
    version, schema = _published(kind)
    found = [manifest.get(name) for name in ("apiVersion", "kind")] if isinstance(manifest, dict) else [None, None]
    if found != [version, kind]:
        raise ConfigError(f"the manifest is of {found[0]} {found[1]}: a cluster takes {version} {kind}")
    wrong = list(_faults(manifest, schema, ""))
    if wrong:
        raise ConfigError(f"a cluster takes no such {kind}: {'; '.join(wrong)}")


@cache
def _published(kind: str) -> tuple[str, dict[str, Any]]:
    """The version of the API, and the schema of an object of it."""
    tree = json.loads((CRDS / f"{kind.lower()}.json").read_text(encoding="utf-8"))
    tree["schema"]["properties"]["spec"]["properties"] |= LATER.get(kind, {})
    return tree["apiVersion"], tree["schema"]


def _faults(value: Any, schema: Mapping[str, Any], at: str) -> Iterator[str]:
    """What is wrong with a value, each with its place. What a schema does not allow for is refused, not dropped."""
    if schema.get("x-kubernetes-int-or-string"):
        if isinstance(value, bool) or not isinstance(value, int | str):
            yield f"{at} is {value!r}, and neither a number nor a text"
            return
    elif not _is(value, schema["type"]):
        yield f"{at} is {value!r}, and of another type than {schema['type']}"
        return
    if isinstance(value, dict):
        yield from _faults_of_fields(value, schema, at)
    elif isinstance(value, list):
        for place, each in enumerate(value):
            yield from _faults(each, schema["items"], f"{at}[{place}]")
    elif isinstance(value, str):
        yield from _faults_of_text(value, schema, at)
    elif not isinstance(value, bool):
        most = 2 ** (BITS.get(schema.get("format", ""), 64) - 1) - 1
        if not schema.get("minimum", -most - 1) <= value <= most:
            yield f"{at} is {value}, which is out of its range"


def _is(value: Any, name: str) -> bool:
    return isinstance(value, TYPES[name]) and (name == "boolean" or not isinstance(value, bool))


def _faults_of_fields(value: dict[str, Any], schema: Mapping[str, Any], at: str) -> Iterator[str]:
    fields: Mapping[str, Any] = schema.get("properties", {})
    others = schema.get("additionalProperties")
    for name, each in value.items():
        path = f"{at}.{name}" if at else name
        known = fields.get(name, others)
        if known is None:
            yield f"there is no field {path}{did_you_mean(name, fields)}"
        else:
            yield from _faults(each, known, path)
    for name in schema.get("required", ()):
        if name not in value:
            yield f"{at or 'it'} has no {name}"


def _faults_of_text(value: str, schema: Mapping[str, Any], at: str) -> Iterator[str]:
    if value not in schema.get("enum", [value]):
        yield f"{at} is {value!r}, and none of {', '.join(schema['enum'])}"
    if not re.search(schema.get("pattern", ""), value):
        yield f"{at} is {value!r}, which is not written as it should be"
