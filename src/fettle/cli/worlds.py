"""What is played: the last run of a recipe, or one environment of the table by its name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fettle.config import EnvironmentConfig, Pipeline, RewardModelRun, RLRun
from fettle.config.arguments import settings_from
from fettle.config.keys import key_from
from fettle.config.load import load, load_as
from fettle.environments import ENVIRONMENTS
from fettle.environments.plugins import plugins
from fettle.errors import ConfigError, did_you_mean

RECIPES = (".yaml", ".yml")
USUAL_TASKS = 200
"""Held-out tasks that are scored where nobody says how many."""


@dataclass(frozen=True, slots=True)
class Speaker:
    """Who plays: a model by its folder or name, or by its name at an OpenAI-compatible endpoint."""

    model: str
    endpoint: str | None = None
    key_env: str | None = None

    def key(self) -> str | None:
        """The endpoint's key.

        Raises:
            ConfigError: it is not there.
        """
        return key_from(self.key_env, named="--key-env")


def is_recipe(world: str) -> bool:
    """Whether a recipe's file is named, and no environment."""
    return world.endswith(RECIPES) or Path(world).is_file()


def run_of(world: str, overrides: Sequence[str], *, model: str) -> RLRun:
    """A recipe's last run with settings laid over it, or a run of ``model`` in an environment with its settings.

    Raises:
        ConfigError: a setting is wrong, there is no such environment, or the recipe ends with something else.
    """
    if is_recipe(world):
        return last_run(Path(world), overrides)
    environment = _environment(world, overrides)
    given = {
        "policy": {"model": model},
        "environments": (environment,),
        "evaluation": {"tasks": min(USUAL_TASKS, environment.heldout or USUAL_TASKS)},
    }
    return settings_from(world, RLRun, given)


def last_run(path: Path, overrides: Sequence[str]) -> RLRun:
    """The run of reinforcement learning that a recipe ends with.

    Raises:
        ConfigError: it ends with something else, which has no tasks.
    """
    config = load(path, overrides)
    last = config.stages[-1] if isinstance(config, Pipeline) else config
    if isinstance(last, RewardModelRun):
        raise ConfigError(f"{path} ends with a reward model, which has no tasks to score: give a recipe of type rl")
    if not isinstance(last, RLRun):
        raise ConfigError(f"{path} ends with supervised learning, which has no tasks to score: give --recipe RECIPE")
    return last


def drawn(run: RLRun, *, max_tokens: int | None, seed: int | None) -> RLRun:
    """The run with other settings of how replies are drawn; what is None stays."""
    sampling = run.sampling if max_tokens is None else run.sampling.model_copy(update={"max_tokens": max_tokens})
    return run.model_copy(update={"sampling": sampling, "seed": run.seed if seed is None else seed})


def scored(run: RLRun, **settings: Any) -> RLRun:
    """The run with other settings of its evaluation; what is None stays.

    Raises:
        ConfigError: a setting cannot be what it is, or does not go with the others.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    if not given:
        return run
    evaluation = {**run.evaluation.model_dump(), **given}
    return settings_from("the command line", RLRun, {**dict(run), "evaluation": evaluation})


def types_of_worlds() -> Mapping[str, type[EnvironmentConfig]]:
    """The classes of environments by what recipes call them."""
    return {kind.model_fields["type"].default: kind for kind in ENVIRONMENTS}


def settings_named(name: str) -> Mapping[str, str] | None:
    """What a name stands for in a recipe: a type, or what a package brings; None where it is neither's."""
    if name in types_of_worlds():
        return {"type": name}
    return {"type": "plugin", "name": name} if name in plugins() else None


def _environment(name: str, overrides: Sequence[str]) -> EnvironmentConfig:
    kinds, settings = types_of_worlds(), settings_named(name)
    if settings is None:
        known = [*sorted(kinds), *plugins()]
        raise ConfigError(
            f"{name} is neither a recipe nor an environment: use a YAML file, or one of {', '.join(known)}"
            f"{did_you_mean(name, known)}"
        )
    given = [f"{key}={value}" for key, value in settings.items()]
    environment: EnvironmentConfig = load_as(kinds[settings["type"]], None, [*given, *overrides])
    return environment
