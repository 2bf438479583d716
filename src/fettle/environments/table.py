"""The environments there are. Each is imported when it is first asked for, since some need packages of their own."""

import importlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import overload

from fettle.config import (
    JSONL,
    Arithmetic,
    Code,
    Debate,
    Dialogue,
    EnvironmentConfig,
    Gymnasium,
    Issues,
    Mathematics,
    OpenEnv,
    Plugin,
    ReasoningGym,
    Remote,
    Rewarded,
    Tools,
    Verifiers,
)
from fettle.environments.base import GameSuite, Suite
from fettle.environments.rewarded import RewardedSuite
from fettle.errors import ConfigError

ENVIRONMENTS: Mapping[type[EnvironmentConfig], str] = MappingProxyType(
    {
        Arithmetic: "fettle.environments.arithmetic:suite",
        Debate: "fettle.environments.debate:suite",
        Dialogue: "fettle.environments.dialogue:suite",
        Code: "fettle.environments.coding:suite",
        Issues: "fettle.environments.issues:suite",
        JSONL: "fettle.environments.jsonl:suite",
        Mathematics: "fettle.environments.mathematics:suite",
        ReasoningGym: "fettle.environments.reasoning_gym:suite",
        Remote: "fettle.environments.remote.client:suite",
        Tools: "fettle.environments.tools:suite",
        Gymnasium: "fettle.environments.adapters.gymnasium:suite",
        OpenEnv: "fettle.environments.adapters.openenv:suite",
        Verifiers: "fettle.environments.adapters.verifiers:suite",
        Plugin: "fettle.environments.plugins:suite",
    }
)
"""For each class of settings, the function that makes its suite."""

EXTRAS: Mapping[type[EnvironmentConfig], str] = MappingProxyType(
    {
        Issues: "issues",
        ReasoningGym: "gym",
        Remote: "remote",
        Gymnasium: "adapters",
        OpenEnv: "adapters",
        Verifiers: "adapters",
    }
)
"""The extra of this package that brings what an environment needs."""


@overload
def suite(config: Arithmetic | Code | Mathematics | ReasoningGym | Tools) -> Suite: ...
@overload
def suite(config: EnvironmentConfig) -> Suite | GameSuite: ...
def suite(config: EnvironmentConfig) -> Suite | GameSuite:
    """The tasks and environments that ``config`` describes.

    Raises:
        ConfigError: a setting is wrong, or the package that the environment needs is not installed.
        DataError: its file cannot be used.
    """
    module, _, function = ENVIRONMENTS[type(config)].partition(":")
    try:
        build: Callable[[EnvironmentConfig], Suite | GameSuite] = getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        if type(config) not in EXTRAS or (error.name or "").startswith("fettle"):
            raise
        install = f"pip install 'fettle[{EXTRAS[type(config)]}]'"
        raise ConfigError(
            f"{config.type} environments need the package {error.name}, which is not installed: {install}"
        ) from error
    made = build(config)
    if not isinstance(config, Rewarded) or not config.rewards:
        return made
    if isinstance(made, GameSuite):
        raise ConfigError(f"{made.name} is a game, of which each player earns what the game says: leave rewards out")
    return RewardedSuite(made, config.rewards)
