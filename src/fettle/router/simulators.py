"""The simulators by name, and the reward that is made of what they tell. All of it is simulated."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from fettle.config.router import RouterRewardWeights, SimulatorConfig
from fettle.router.legacy import Legacy
from fettle.router.nouns import SIGNS, Doubles, Simulator
from fettle.router.tasks import Tasks

SIMULATORS: Mapping[str, Callable[..., Simulator]] = MappingProxyType({"legacy": Legacy, "tasks": Tasks})
"""By the ``type`` of the settings, the rest of which are passed by keyword."""


def simulator_of(config: SimulatorConfig) -> Simulator:
    """The simulator that the settings ask for."""
    return SIMULATORS[config.type](**config.model_dump(exclude={"type"}))


def reward(terms: Mapping[str, Doubles], weights: RouterRewardWeights) -> Doubles:
    """``Σ ± w x`` over the terms, with the signs of ``SIGNS``; of whatever shape the terms have."""
    return np.asarray(sum(sign * getattr(weights, name) * terms[name] for name, sign in SIGNS.items()))
