"""Which agents a mode would work with, what that costs, how long it takes, and which modes that rules out."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from fettle.config.routing import CollaborationPreferences
from fettle.errors import ConfigError, DataError
from fettle.router.amounts import amount
from fettle.router.modes import MODES, CollaborationMode, CollaborationPolicy

ROUNDS: Mapping[CollaborationMode, int] = MappingProxyType(
    {
        CollaborationMode.SOLO: 1,
        CollaborationMode.CONSULT: 1,
        CollaborationMode.COLLABORATE: 1,
        CollaborationMode.CONSENSUS: 2,
        CollaborationMode.SWARM: 3,
    }
)
"""How often each agent of a mode is called at depth 1: a consensus answers and votes, a swarm disputes in between."""


@dataclass(frozen=True, slots=True)
class Agent:
    """One that may be asked, and what one call of it costs and takes."""

    name: str
    usd: float = 0.0
    p95_s: float = 0.0

    def __post_init__(self) -> None:
        """
        Numbers of another kind, as those of NumPy, are made plain ones: a short one compares with less care.

        Raises:
            ConfigError: a number is negative or not finite, so that no cap could be held.
        """
        usd, p95_s = amount(self.usd), amount(self.p95_s)
        if usd is None or p95_s is None or not (0 <= usd < math.inf and 0 <= p95_s < math.inf):
            raise ConfigError(f"agent {self.name} costs {usd} and takes {p95_s} s: both are numbers from 0 on")
        object.__setattr__(self, "usd", usd)
        object.__setattr__(self, "p95_s", p95_s)


@dataclass(frozen=True, slots=True)
class Team:
    """Who works on a task in one mode. Agents of one round work side by side."""

    agents: tuple[Agent, ...]
    rounds: int

    @property
    def usd(self) -> float:
        """What all of their calls cost; infinity where no float holds it."""
        try:
            return self.rounds * math.fsum(agent.usd for agent in self.agents)
        except OverflowError:
            return math.inf

    @property
    def p95_s(self) -> float:
        """How long their rounds take, each as long as its slowest agent: an estimate from what was said of agents."""
        return self.rounds * max(agent.p95_s for agent in self.agents)


@dataclass(frozen=True, slots=True)
class Teams:
    """The modes that a request allows, and why it does not allow the others."""

    allowed: Mapping[CollaborationMode, Team]
    ruled_out: Mapping[CollaborationMode, str]


def teams(agents: Sequence[Agent], preferences: CollaborationPreferences) -> Teams:
    """What is possible with ``agents``, of which the first answers and the others are asked, the sooner the earlier.

    Raises:
        DataError: one of them is no agent.
    """
    for at, agent in enumerate(agents, start=1):
        if not isinstance(agent, Agent):
            raise DataError(f"agent {at} of the request is of type {type(agent).__name__}: give an Agent")
    allowed: dict[CollaborationMode, Team] = {}
    ruled_out: dict[CollaborationMode, str] = {}
    for mode in MODES:
        found = _team(mode, agents, preferences)
        if isinstance(found, Team):
            allowed[mode] = found
        else:
            ruled_out[mode] = found
    return Teams(MappingProxyType(allowed), MappingProxyType(ruled_out))


def nearest(mode: CollaborationMode, allowed: Mapping[CollaborationMode, Team]) -> CollaborationMode | None:
    """The mode itself if it is allowed, else the next that asks less of others, else the next that asks more."""
    at = MODES.index(mode)
    return next((each for each in (*MODES[at::-1], *MODES[at:]) if each in allowed), None)


def _team(mode: CollaborationMode, agents: Sequence[Agent], preferences: CollaborationPreferences) -> Team | str:
    """The agents of a mode, or why it cannot be taken."""
    rule = CollaborationPolicy.of(mode)
    alone = mode is CollaborationMode.SOLO
    if not agents:
        return "there are no agents"
    if not alone and not (preferences.ask_online and preferences.depth):
        return "preferences.ask_online is false" if preferences.depth else "preferences.depth is 0"
    if len(agents) < rule.fewest:
        return f"it takes {rule.fewest} agents, and there are {len(agents)}"
    rounds = 1 if alone else ROUNDS[mode] * preferences.depth
    # Asked in this direction a cap that is no number rules out everything; in the other it would allow everything.
    if not rounds * agents[0].p95_s <= preferences.p95_latency_s:
        return f"{agents[0].name} alone takes {rounds * agents[0].p95_s:g} s, over {preferences.p95_latency_s:g} s"
    in_time = [agent for agent in agents[1:] if rounds * agent.p95_s <= preferences.p95_latency_s]
    if len(in_time) + 1 < rule.fewest:
        return f"too few of its agents answer within preferences.p95_latency_s, {preferences.p95_latency_s:g} s"
    cheapest = Team((agents[0], *_cheapest(in_time, rule.fewest - 1)), rounds)
    if not cheapest.usd <= preferences.budget_usd:
        return f"it costs at least {cheapest.usd:g} USD, over preferences.budget_usd, {preferences.budget_usd:g}"
    return _largest(cheapest, in_time, rule, preferences.budget_usd)


def _largest(cheapest: Team, in_time: Sequence[Agent], rule: CollaborationPolicy, budget: float) -> Team:
    """As many as the rule and the budget allow, earlier ones first; at worst the cheapest team there is."""
    team = Team(cheapest.agents[:1], cheapest.rounds)
    for at, agent in enumerate(in_time):
        if rule.most is not None and len(team.agents) == rule.most:
            break
        joined = Team((*team.agents, agent), team.rounds)
        missing = max(0, rule.fewest - len(joined.agents))
        rest = _cheapest(in_time[at + 1 :], missing)
        if len(rest) == missing and Team((*joined.agents, *rest), team.rounds).usd <= budget:
            team = joined
    return team if rule.allows(len(team.agents)) else cheapest


def _cheapest(agents: Sequence[Agent], count: int) -> tuple[Agent, ...]:
    return tuple(sorted(agents, key=lambda agent: agent.usd)[:count])
