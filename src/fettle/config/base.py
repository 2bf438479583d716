"""What every class of settings is: frozen, strict, and described by its own docstrings."""

from collections.abc import Mapping
from functools import cache
from typing import Any, get_origin

from pydantic import BaseModel, ConfigDict, model_validator


class Frozen(BaseModel):
    """Unknown keys are errors, values never change, and a field's docstring is its description.

    Strict: a number is never read from a text, nor a switch from a number or a ``yes``.
    """

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        use_attribute_docstrings=True,
        validate_default=True,
        allow_inf_nan=False,
    )

    @model_validator(mode="before")
    @classmethod
    def _variants_default_to_their_default(cls, given: Any) -> Any:
        """``schedule: {warmup_steps: 5}`` names no ``type``, and so means the default's."""
        if not isinstance(given, Mapping):
            return given
        tree = dict(given)
        for name, field in cls.model_fields.items():
            kind = getattr(field.default, "type", None)
            value = tree.get(name)
            if isinstance(field.default, BaseModel) and kind and isinstance(value, Mapping) and "type" not in value:
                tree[name] = {"type": kind, **value}
        return tree

    @model_validator(mode="before")
    @classmethod
    def _lists_are_tuples(cls, given: Any) -> Any:
        """Files and wires know no tuples."""
        if not isinstance(given, Mapping):
            return given
        tuples = _tuples(cls)
        return {
            name: tuple(value) if name in tuples and isinstance(value, list) else value for name, value in given.items()
        }


@cache
def _tuples(settings: type[BaseModel]) -> frozenset[str]:
    """The names of those that are tuples."""
    return frozenset(name for name, field in settings.model_fields.items() if get_origin(field.annotation) is tuple)
