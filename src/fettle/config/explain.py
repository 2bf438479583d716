"""What is wrong with settings, in sentences: the place, the key, and the mend."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType, UnionType
from typing import Annotated, Any, Literal, TypeGuard, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from fettle.config.document import Document, Keys, dotted
from fettle.errors import did_you_mean, nearest

Owner = tuple[Keys, type[BaseModel]]
"""A class of settings, and the keys that lead to it."""

MAPPINGS = (dict, Mapping)
MOST_GUESSES = 3
LONGEST_VALUE = 60  # characters of a value that a sentence shows


@dataclass(frozen=True)
class Fault:
    """One thing that pydantic found wrong, with pydantic's names of union members taken out of its path."""

    kind: str
    """pydantic's name of it, such as ``extra_forbidden``."""
    keys: Keys
    allowed: Any
    """The annotation of what may stand there."""
    owners: tuple[Owner, ...]
    """The classes on the way there, outermost first."""
    root: Any
    """The annotation of the whole tree."""
    given: Any
    message: str
    details: Mapping[str, Any]

    @property
    def key(self) -> str:
        """The path, quoted."""
        return f"'{dotted(self.keys)}'"

    @property
    def tag(self) -> Keys:
        """The path of the ``type`` that stands there."""
        return (*self.keys, "type")


def sentences(error: ValidationError, root: Any, document: Document) -> list[str]:
    """One line for each fault of ``document``, which should have been a ``root``."""
    faults = (_fault(found, root, document.tree) for found in error.errors(include_url=False))
    return [
        f"{document.place(_telling(fault, document))}: {SENTENCES.get(fault.kind, _as_pydantic_says)(fault)}"
        for fault in faults
        if fault is not None
    ]


def _fault(found: Any, root: Any, tree: Any) -> Fault | None:
    """None where another line says it: a member of a union that was not meant, a list too short as its items failed."""
    keys: Keys = ()
    owners: list[Owner] = []
    allowed, value = root, tree
    for part in found["loc"]:
        choices = alternatives(allowed)
        if len(choices) > 1:
            allowed = _member(choices, str(part))
            if is_settings(allowed) != isinstance(value, Mapping):
                return None
            continue
        [choice] = choices
        if is_settings(choice):
            owners.append((keys, choice))
        keys, value, allowed = (*keys, str(part)), _item(value, part), _below(choice, str(part))
    details = found.get("ctx", {})
    if found["type"] == "too_short" and len(found["input"]) >= details["min_length"]:
        return None
    return Fault(found["type"], keys, allowed, tuple(owners), root, found["input"], found["msg"], details)


def alternatives(annotation: Any) -> tuple[Any, ...]:
    """The types that an annotation allows, besides None."""
    if get_origin(annotation) is Annotated:
        return alternatives(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return tuple(choice for member in get_args(annotation) for choice in alternatives(member))
    return () if annotation is type(None) else (annotation,)


def is_settings(annotation: Any) -> TypeGuard[type[BaseModel]]:
    """Whether it is a class of settings."""
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def tags(annotation: Any) -> list[str]:
    """The ``type`` of each variant that an annotation allows."""
    return [tag for choice in alternatives(annotation) if (tag := _tag(choice))]


def _tag(choice: Any) -> str | None:
    field = choice.model_fields.get("type") if is_settings(choice) else None
    return str(field.default) if field else None


def _member(choices: tuple[Any, ...], name: str) -> Any:
    """The one that pydantic calls ``name``: by its ``type``, or by its class within the names of its validators."""
    return next(choice for choice in choices if name == _tag(choice) or choice.__name__ in name)


def _below(choice: Any, part: str) -> Any:
    """The annotation of a field or of an item."""
    if is_settings(choice):
        field = choice.model_fields.get(part)
        return field.annotation if field else Any
    items = _items(choice)
    return Any if items is None else items


def _items(choice: Any) -> Any:
    """The annotation of what a list or a mapping holds; None for anything else."""
    origin = get_origin(choice)
    return get_args(choice)[-1 if origin in MAPPINGS else 0] if origin in (tuple, *MAPPINGS) else None


def _item(value: Any, part: str | int) -> Any:
    if isinstance(value, Mapping):
        return value.get(part)
    return value[part] if isinstance(value, list) and isinstance(part, int) else None


def _telling(fault: Fault, document: Document) -> Keys:
    """The setting whose place tells most."""
    if fault.kind == "missing":
        return (*fault.keys[:-1], "type")  # which made the missing one necessary
    if fault.kind == "union_tag_invalid":
        return fault.tag
    words = re.findall(r"[a-z]\w*(?:\.\w+)*", str(fault.details["error"])) if fault.kind == "value_error" else []
    named = (fault.keys + tuple(word.split(".")) for word in words)
    return next((keys for keys in named if keys in document.places), fault.keys)


def _unknown(fault: Fault) -> str:
    kinds, same = _types_with(fault), _of_that_name(fault)
    if kinds:
        hints = [f"it is a setting of type {' or '.join(kinds)}"]
        around, owner = fault.owners[-1]
        if "stages" in owner.model_fields:
            hints.append(f"for the first of the stages write {dotted(('stages', '0', *fault.keys))!r}")
        same = [keys for keys in same if keys[: len(around)] == around and len(keys) <= len(around) + 2]
    else:
        same = same or _of_nearly_that_name(fault)
        hints = [] if same else [f"known here: {', '.join(fault.owners[-1][1].model_fields)}"]
    if same:
        hints.append(f"did you mean {' or '.join(repr(dotted(keys)) for keys in same[:MOST_GUESSES])}?")
    return f"unknown key {fault.key}; {'; '.join(hints)}"


def _types_with(fault: Fault) -> list[str]:
    """The types of variants that do have this key here."""
    places = [*(((), choice) for choice in alternatives(fault.root)), *fault.owners]
    found = [owner for place in places for keys, owner in _settings(*place, fault.keys) if keys == fault.keys]
    return list(dict.fromkeys(tag for owner in found if (tag := _tag(owner))))


def _of_that_name(fault: Fault) -> list[Keys]:
    """Where else a key of that name stands, as near by and as high up as may be."""
    for owner in reversed(fault.owners):
        found = [keys for keys, _ in _settings(*owner, fault.keys) if keys[-1] == fault.keys[-1] and keys != fault.keys]
        if found:
            return _highest(found)
    return []


def _of_nearly_that_name(fault: Fault) -> list[Keys]:
    """Keys spelt much like it: in the same place, or else as high up as may be."""
    anywhere = [keys for keys, _ in _settings(*fault.owners[0], fault.keys)]
    around, owner = fault.owners[-1]
    here = [(*around, name) for name in owner.model_fields]
    meant = nearest(fault.keys[-1], dict.fromkeys(keys[-1] for keys in [*here, *anywhere]))
    return _highest([keys for keys in here if keys[-1] == meant] or [keys for keys in anywhere if keys[-1] == meant])


def _highest(settings: list[Keys]) -> list[Keys]:
    depth = min(map(len, settings), default=0)
    return list(dict.fromkeys(keys for keys in settings if len(keys) == depth))


def _settings(keys: Keys, owner: type[BaseModel], towards: Keys) -> Iterator[Owner]:
    """Every setting from ``owner`` down, with the class it belongs to.

    Of a list or a mapping, the item on the way ``towards``; of a mapping that does not lie on it, none.
    """
    for name, field in owner.model_fields.items():
        here = (*keys, name)
        yield here, owner
        for choice in alternatives(field.annotation):
            inside, members = here, (choice,)
            if (items := _items(choice)) is not None:
                onwards = towards[: len(here)] == here and len(towards) > len(here)
                if not onwards and get_origin(choice) in MAPPINGS:
                    continue
                inside, members = (*here, towards[len(here)] if onwards else "0"), alternatives(items)
            for member in filter(is_settings, members):
                yield from _settings(inside, member, towards)


def _missing(fault: Fault) -> str:
    return f"{fault.key} is missing, and has no default"


def _without_type(fault: Fault) -> str:
    return f"'{dotted(fault.tag)}' is missing: give one of {', '.join(tags(fault.allowed))}"


def _of_no_such_type(fault: Fault) -> str:
    return _not_among(fault.tag, fault.given["type"], tags(fault.allowed))


def _of_no_such_name(fault: Fault) -> str:
    literals = [choice for choice in alternatives(fault.allowed) if get_origin(choice) is Literal]
    return _not_among(fault.keys, fault.given, [str(name) for choice in literals for name in get_args(choice)])


def _not_among(keys: Keys, given: Any, names: list[str]) -> str:
    return f"'{dotted(keys)}' is {shown(given)}, which is none of {', '.join(names)}{did_you_mean(str(given), names)}"


def _no_mapping(fault: Fault) -> str:
    named = f" such as {{type: {fault.given}}}" if fault.given in tags(fault.allowed) else ""
    return f"{fault.key} takes a mapping of settings{named} (got {shown(fault.given)})"


def _no_list(fault: Fault) -> str:
    if isinstance(fault.given, Mapping):
        return f"{fault.key} takes a list, and there is none here whose items could be changed: give it whole"
    return f"{fault.key} takes a list (got {shown(fault.given)})"


def _too_short(fault: Fault) -> str:
    return f"{fault.key} needs at least {fault.details['min_length']} item (got {len(fault.given)})"


def _no_text(fault: Fault) -> str:
    quote = "" if fault.given is None else ": put it in quotes"
    return f"{fault.key} takes a text (got {shown(fault.given)}){quote}"


def _no_switch(fault: Fault) -> str:
    return f"{fault.key} takes true or false (got {shown(fault.given)})"


def _checked(fault: Fault) -> str:
    return f"{fault.key}: {fault.details['error']}" if fault.keys else str(fault.details["error"])


def _as_pydantic_says(fault: Fault) -> str:
    return f"{fault.key} {fault.message.removeprefix('Input ')} (got {shown(fault.given)})"


def shown(value: Any) -> str:
    """A value as a sentence can hold it."""
    text = repr(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}..."


SENTENCES: Mapping[str, Callable[[Fault], str]] = MappingProxyType(
    {
        "extra_forbidden": _unknown,
        "missing": _missing,
        "union_tag_not_found": _without_type,
        "union_tag_invalid": _of_no_such_type,
        "literal_error": _of_no_such_name,
        "model_type": _no_mapping,
        "model_attributes_type": _no_mapping,
        "dict_type": _no_mapping,
        "tuple_type": _no_list,
        "too_short": _too_short,
        "string_type": _no_text,
        "bool_type": _no_switch,
        "value_error": _checked,
    }
)
"""How each kind of fault is put, by pydantic's name of it."""
