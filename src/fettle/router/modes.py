"""The ways in which agents may work on a task, and how many agents each takes."""

from dataclasses import dataclass
from enum import StrEnum

from fettle.errors import ConfigError


class CollaborationMode(StrEnum):
    """A mode by its documented name; ``MODES`` has their order, which is that of the actions 0 to 4."""

    SOLO = "solo"
    """Work locally and ask nobody."""
    CONSULT = "consult"
    """Ask one other model once."""
    COLLABORATE = "collaborate"
    """Share the work out among roles."""
    CONSENSUS = "consensus"
    """Share the work out and vote before answering."""
    SWARM = "swarm"
    """Debate among many models."""


MODES = tuple(CollaborationMode)
"""Action 0, 1, 2, 3, 4."""


@dataclass(frozen=True, slots=True)
class CollaborationPolicy:
    """How many agents a mode takes; ``most`` is None where there is no limit."""

    fewest: int
    most: int | None

    @staticmethod
    def of(mode: CollaborationMode) -> "CollaborationPolicy":
        """The rule of a mode."""
        return _RULES[MODES.index(mode)]

    @staticmethod
    def enforce(mode: CollaborationMode, agents: int) -> None:
        """Refuse a number of agents that the mode cannot work with.

        Raises:
            ConfigError: there are too few or too many.
        """
        rule = CollaborationPolicy.of(mode)
        if rule.allows(agents):
            return
        most = "" if rule.most is None else f" and at most {rule.most}"
        raise ConfigError(f"{mode} was given {agents} agents, and takes at least {rule.fewest}{most}: change either")

    def allows(self, agents: int) -> bool:
        """Whether the mode can work with that many."""
        return agents >= self.fewest and (self.most is None or agents <= self.most)


_RULES = (
    CollaborationPolicy(1, 1),
    CollaborationPolicy(1, 2),
    CollaborationPolicy(2, None),
    CollaborationPolicy(2, None),
    CollaborationPolicy(3, None),
)
