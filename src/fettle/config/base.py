"""What every class of settings is: frozen, strict, and described by its own docstrings."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator


class Frozen(BaseModel):
    """Unknown keys are errors, values never change, and a field's docstring is its description."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True)

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
