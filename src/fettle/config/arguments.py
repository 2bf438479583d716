"""The arguments of a documented call as settings: what is wrong with them is told in sentences."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import ValidationError

from fettle.config.base import Frozen
from fettle.config.document import Document, Keys
from fettle.config.explain import sentences
from fettle.errors import ConfigError

Settings = TypeVar("Settings", bound=Frozen)

SAME_NAMES: Mapping[Keys, str] = MappingProxyType({})

RUN_ARGUMENTS: Mapping[Keys, str] = MappingProxyType(
    {
        ("model",): "base_model",
        ("lora", "rank"): "lora_r",
        ("lora", "alpha"): "lora_alpha",
        ("lora", "dropout"): "lora_dropout",
    }
)
"""What ``create_run`` calls the settings of a policy."""


def settings_from(
    call: str, kind: type[Settings], given: Mapping[str, Any], names: Mapping[Keys, str] = SAME_NAMES
) -> Settings:
    """The settings that ``call`` was given; ``names`` are its own of those that it calls otherwise.

    Raises:
        ConfigError: one line for each argument that cannot be what it is.
    """
    with told_of(call, kind, given, names):
        return kind.model_validate(dict(given))


@contextmanager
def told_of(
    call: str, kind: type[Frozen], given: Mapping[str, Any], names: Mapping[Keys, str] = SAME_NAMES
) -> Iterator[None]:
    """What pydantic raises of ``given`` in the block, as a ``ConfigError``."""
    try:
        yield
    except ValidationError as error:
        places = {(): call} | {keys: f"{call}, {name}" for keys, name in names.items()}
        raise ConfigError("\n".join(sentences(error, kind, Document(dict(given), places)))) from error
