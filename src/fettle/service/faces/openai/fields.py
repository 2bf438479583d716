"""Fields of the OpenAI API that are no fields here: which are harmless, and which would be a lie to take."""

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any

from pydantic_core import PydanticCustomError

from fettle.errors import did_you_mean

HARMLESS = frozenset({"user", "metadata", "store", "safety_identifier", "prompt_cache_key", "service_tier"})
"""They change nothing about an answer."""

NEUTRAL: Mapping[str, tuple[object, ...]] = MappingProxyType(
    {
        "frequency_penalty": (0,),
        "presence_penalty": (0,),
        "logit_bias": ({},),
        "best_of": (1,),
        "suffix": ("",),
        "parallel_tool_calls": (True,),
        "modalities": (["text"],),
        **dict.fromkeys(
            (
                "audio",
                "file",
                "function_call",
                "functions",
                "image_url",
                "input_audio",
                "moderation",
                "prediction",
                "prompt_cache_options",
                "prompt_cache_retention",
                "reasoning_effort",
                "verbosity",
                "web_search_options",
            ),
            (),
        ),
    }
)
"""Fields that are not supported, with the values that ask for nothing."""


def known_fields(given: object, names: Collection[str]) -> object:
    """What a body says in fields that are read here; null is as good as nothing.

    Raises:
        PydanticCustomError: it asks for something that would not be done.
    """
    if not isinstance(given, Mapping):
        return given
    kept: dict[str, Any] = {}
    for name, value in given.items():
        if name in names and value is not None:
            kept[name] = value
        elif name not in names and value is not None:
            _check_asks_nothing(name, value, names)
    return kept


def _check_asks_nothing(name: str, value: object, names: Collection[str]) -> None:
    if name in HARMLESS or value in NEUTRAL.get(name, ()):
        return
    if name in NEUTRAL:
        raise refused(name, f"{name} is not supported here: leave it out")
    raise refused(name, f"{name} is no field of this request{did_you_mean(name, [*names, *NEUTRAL])}")


def refused(field: str, message: str) -> PydanticCustomError:
    """An error of a body that names its field."""
    return PydanticCustomError("refused", "{message}", {"message": message, "field": field})
