"""Where the episodes of a run are played: here, or at the server that ``rllm.rollout_service`` names."""

import importlib
from typing import Any

import numpy as np

from fettle.config.router import RLLM
from fettle.errors import ConfigError
from fettle.randomness import key
from fettle.router.nouns import Choices, Seen, Simulator, State, Terms, World
from fettle.router.simulators import simulator_of


class LocalWorld:
    """Satisfies ``World`` in this process."""

    def __init__(self, simulator: Simulator, *, seed: int, count: int) -> None:
        self.features = simulator.features
        self.count = count
        self._simulator = simulator
        self._seed = seed
        self._state: State = {}
        self._rng = np.random.default_rng(0)

    def begin(self, number: int) -> Seen:
        """Every draw of these episodes comes from a generator of their own."""
        self._rng = np.random.default_rng(key(self._seed, "router", "episodes", number))
        self._state = self._simulator.start(self.count, self._rng)
        return self._seen()

    def step(self, modes: Choices) -> tuple[Seen, Terms]:
        """By the simulator."""
        self._state, terms = self._simulator.step(self._state, modes, self._rng)
        return self._seen(), terms

    def close(self) -> None:
        """There is nothing to give back."""

    def _seen(self) -> Seen:
        return Seen(self._simulator.observations(self._state), self._simulator.planning(self._state))


def world_of(rllm: RLLM, *, count: int) -> World:
    """Where the settings say that ``count`` episodes at once are played.

    Raises:
        FettleError: the server is away, does not let us in, or plays something else; or its extra is not installed.
    """
    if not rllm.rollout_service.enabled:
        return LocalWorld(simulator_of(rllm.simulator), seed=rllm.trainer.seed, count=count)
    try:
        # Only when it is asked for: it needs an extra.
        served: Any = importlib.import_module("fettle.router.remote")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("fettle"):
            raise
        raise ConfigError(
            f"rllm.rollout_service needs the package {error.name}, which is not installed: pip install 'fettle[remote]'"
        ) from error
    world: World = served.RemoteWorld(rllm, count=count)
    return world
