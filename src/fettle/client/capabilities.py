"""What a service says of its engine."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from fettle.engine.base import Capabilities
from fettle.errors import EngineError
from fettle.frames import Tree


def capabilities_of(told: Mapping[str, Tree]) -> Capabilities:
    """What the service's engine can do.

    Raises:
        EngineError: the service tells something else.
    """
    names = {field.name for field in fields(Capabilities)}
    known: dict[str, Any] = {
        name: tuple(said) if isinstance(said, list) else said for name, said in told.items() if name in names
    }
    try:
        return Capabilities(**known)
    except TypeError as error:
        raise EngineError(
            f"the service does not say what its engine can do ({error}): is it of another version?"
        ) from error
