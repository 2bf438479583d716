"""Environments that other packages bring, by the entry points of the group ``fettle.environments``."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Protocol, get_type_hints

from pydantic import BaseModel, JsonValue, ValidationError

from fettle.config import Plugin
from fettle.config.document import Document
from fettle.config.explain import sentences
from fettle.environments.base import GameSuite, Suite
from fettle.errors import ConfigError, FettleError, did_you_mean

GROUP = "fettle.environments"
PASSED = ("seed", "heldout", "system")
"""What a plug-in's function is given beside its settings, by keyword."""
SHAPE = "def suite(settings: Settings, *, seed: int, heldout: int, system: str | None) -> Suite"
MEMBERS = ("name", "training_task", "heldout_tasks")


class PluginFunction(Protocol):
    """What an entry point names. Its ``settings`` are annotated with the pydantic model that holds them."""

    def __call__(self, settings: Any, *, seed: int, heldout: int, system: str | None) -> Suite | GameSuite:
        """The tasks and environments of these settings."""


def plugins() -> Mapping[str, Sequence[EntryPoint]]:
    """The entry points by name. More than one of a name is more than can be meant by it."""
    found: dict[str, list[EntryPoint]] = {}
    for each in sorted(set(entry_points(group=GROUP)), key=lambda point: (point.name, point.value)):
        found.setdefault(each.name, []).append(each)
    return found


def suite(config: Plugin) -> Suite | GameSuite:
    """The suite that a package makes of its settings.

    Raises:
        ConfigError: no package brings it, or two do; it cannot be imported, or is no such function; a setting is
            wrong; or it fails.
    """
    point = _point(config.name)
    function, model = described(point)
    settings = _settings(config.name, model, config.settings)
    made = _of(
        point, "failed", lambda: function(settings, seed=config.seed, heldout=config.heldout, system=config.system)
    )
    missing = [name for name in MEMBERS if not hasattr(made, name)]
    if missing or not (hasattr(made, "environment") or isinstance(made, GameSuite)):
        lacks = ", ".join(missing) or "environment"
        raise ConfigError(f"{_called(point)} returned a {type(made).__name__}, which is no suite: it has no {lacks}")
    checked: Suite | GameSuite = made
    return checked


def described(point: EntryPoint) -> tuple[PluginFunction, type[BaseModel]]:
    """The function of an entry point, and the model of its settings.

    Raises:
        ConfigError: it cannot be imported, or is no such function.
    """
    function = _of(point, "cannot be imported", point.load)
    try:
        parameters = list(inspect.signature(function).parameters.values())
        model = get_type_hints(function)[parameters[0].name]
        inspect.signature(function).bind(None, **dict.fromkeys(PASSED))
    except (TypeError, ValueError, NameError, KeyError, IndexError):
        model = None
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        raise ConfigError(f"{_called(point)} is no function of the form `{SHAPE}`, where Settings is a pydantic model")
    return function, model


def _point(name: str) -> EntryPoint:
    known = plugins()
    if name not in known:
        there = f"there are {', '.join(known)}" if known else "none is installed"
        raise ConfigError(f"no installed package brings an environment {name!r} ({there}){did_you_mean(name, known)}")
    points = known[name]
    if len(points) > 1:
        packages = " and ".join(map(_package, points))
        raise ConfigError(f"{packages} both bring an environment {name!r}: uninstall one of them")
    return points[0]


def _settings(name: str, model: type[BaseModel], given: Mapping[str, JsonValue]) -> BaseModel:
    """A model that says nothing of unknown keys would take them in silence, so they are looked for here."""
    known = {alias for field, info in model.model_fields.items() for alias in (field, info.alias) if alias}
    for key in given:
        if key not in known and model.model_config.get("extra") != "allow":
            raise ConfigError(f"the environment {name} has no setting {key!r}{did_you_mean(key, known)}")
    try:
        return model.model_validate(dict(given))
    except ValidationError as error:
        document = Document(dict(given), {(): f"settings of {name}"})
        raise ConfigError("\n".join(sentences(error, model, document))) from error


def _of(point: EntryPoint, what: str, call: Callable[[], Any]) -> Any:
    """What a call of the package's gives; it is not ours, and may fail in any way."""
    try:
        return call()
    except FettleError:
        raise
    except Exception as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConfigError(f"{_called(point)} {what} ({why}): mend or uninstall the package") from error


def _called(point: EntryPoint) -> str:
    return f"the environment {point.name} of the package {_package(point)}, {point.value},"


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.module
