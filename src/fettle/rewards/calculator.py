"""A reward put together in code: components by name with their weights, of which the breakdown is the sum."""

from fettle.errors import ConfigError, did_you_mean
from fettle.rewards.base import RewardFunction, finite_number, scored
from fettle.types import Task


class RewardCalculator:
    """Components that may be added and taken away. One that fails is a fault, and never worth nothing."""

    def __init__(self) -> None:
        self._components: dict[str, tuple[RewardFunction, float]] = {}

    def add(self, name: str, reward: RewardFunction, *, weight: float = 1.0) -> None:
        """Have a component of this name.

        Raises:
            ConfigError: there is one, or the weight is no finite number.
        """
        if name in self._components:
            raise ConfigError(f"the component {name} is there already: remove it first, or choose another name")
        try:
            self._components[name] = reward, finite_number(weight)
        except ValueError as error:
            raise ConfigError(f"the weight of {name} is {error}: give a finite number") from error

    def remove(self, name: str) -> None:
        """Have it no longer.

        Raises:
            ConfigError: there is none.
        """
        if name not in self._components:
            raise ConfigError(f"there is no component {name!r}{did_you_mean(name, self._components)}")
        del self._components[name]

    async def breakdown(self, reply: str, task: Task) -> dict[str, float]:
        """What each component adds; their sum is the reward.

        Raises:
            EnvironmentFault: one of them failed.
            ConfigError: there are none.
        """
        if not self._components:
            raise ConfigError("there is no component: add one before anything is paid")
        return {
            name: weight * sum((await scored(name, reward, reply, task)).values())
            for name, (reward, weight) in self._components.items()
        }

    async def total(self, reply: str, task: Task) -> float:
        """The reward.

        Raises:
            EnvironmentFault: a component failed.
            ConfigError: there are none.
        """
        return sum((await self.breakdown(reply, task)).values())
