"""What a study tries, as Optuna has it and as settings laid over a recipe."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from fettle.config import Pipeline, RunConfig
from fettle.config.study import Floats, Integers, Space, Study, Value
from fettle.errors import ConfigError

Parameters = Mapping[str, Value]
"""Values by the dotted paths of settings."""
Recipe = Callable[[Sequence[str]], RunConfig]
"""The recipe with overrides, such as ``steps=3``, laid over it."""


def distributions(space: Mapping[str, Space]) -> dict[str, BaseDistribution]:
    """Each setting's."""
    return {path: _distribution(each) for path, each in space.items()}


def _distribution(space: Space) -> BaseDistribution:
    if isinstance(space, Floats):
        return FloatDistribution(space.low, space.high, log=space.log)
    if isinstance(space, Integers):
        last = space.high - (space.high - space.low) % space.step
        return IntDistribution(space.low, last, step=space.step)
    return CategoricalDistribution(space.choices)


def overrides(parameters: Parameters) -> list[str]:
    """As they are laid over a recipe."""
    return [f"{path}={json.dumps(value)}" for path, value in parameters.items()]


def seeded(recipe: RunConfig, seed: int) -> list[str]:
    """Overrides that give every stage of a recipe a seed."""
    return [f"{stage}seed={seed}" for stage in _stages(recipe)]


def scored_on(recipe: RunConfig, half: str) -> list[str]:
    """Overrides by which every stage of a recipe is scored on that half of what is held out."""
    return [f"{stage}evaluation.half={half}" for stage in _stages(recipe)]


def _stages(recipe: RunConfig) -> list[str]:
    return [f"stages.{index}." for index in range(len(recipe.stages))] if isinstance(recipe, Pipeline) else [""]


def check_space(study: Study, recipe: Recipe) -> None:
    """Try the ends of each range, and every choice, on the recipe by itself.

    Raises:
        ConfigError: the recipe has no such setting, or it cannot be set to that.
    """
    for path, space in study.space.items():
        for value in _extremes(space):
            try:
                recipe(overrides({path: value}))
            except ConfigError as error:
                raise ConfigError(f"space of the study: {error.message.removeprefix('argument ')}") from error


def _extremes(space: Space) -> Iterator[Value]:
    if isinstance(space, Floats | Integers):
        yield from (space.low, space.high)
    else:
        yield from space.choices
