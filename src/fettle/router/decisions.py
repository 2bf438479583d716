"""A decision of a router, and the two files that decisions are written down in."""

import json
import logging
import math
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from fettle.config.routing import RoutingLog
from fettle.router.modes import MODES, CollaborationMode
from fettle.router.opinions import Opinion
from fettle.router.teams import Agent

logger = logging.getLogger(__name__)

Source = Literal["fixed", "policy", "exploration", "preference", "fallback", "nothing"]
"""Who decided: the fixed mode as the exposure has it, the policy, chance, the preferences, the fixed mode in the place
of a policy that could not, or nobody, for no mode fits."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Which mode one request takes, with whom, and why."""

    request: str
    mode: CollaborationMode | None
    """None where no mode keeps within the caps: then nobody is to be asked anything."""
    agents: tuple[Agent, ...]
    rounds: int
    """How often each of them is called."""
    usd: float
    """What their calls cost."""
    p95_s: float
    source: Source
    why: str
    propensity: float
    """The probability with which a request like this takes this mode."""
    ruled_out: Mapping[CollaborationMode, str]
    """The modes that were not to be had, and why."""
    exposure: str
    opinion: Opinion | None
    """What the policy says, whether or not it was followed; None where it was not asked, or had no answer."""

    def as_json(self) -> dict[str, Any]:
        """For a line of the log. What the policy says was learned in a simulator, and says so."""
        said = self.opinion
        return {
            "request": self.request,
            "mode": self.mode,
            "agents": [agent.name for agent in self.agents],
            "rounds": self.rounds,
            "usd": self.usd,
            "p95_s": self.p95_s,
            "source": self.source,
            "why": self.why,
            "propensity": self.propensity,
            "ruled_out": dict(self.ruled_out),
            "exposure": self.exposure,
            "version": None if said is None else said.version,
            "probabilities": None if said is None else dict(said.probabilities),
            "value": None if said is None else said.value,
            "observed": None if said is None else dict(said.observation),
            "contributions": None if said is None or said.contributions is None else _plain(said.contributions),
            "simulated": True,
        }


def _plain(contributions: Mapping[str, Mapping[CollaborationMode, float]]) -> dict[str, dict[str, float]]:
    return {feature: {str(mode): added for mode, added in row.items()} for feature, row in contributions.items()}


class DecisionLog:
    """Lines added to files that are made when they are first needed. One that cannot be written is told once."""

    def __init__(self, settings: RoutingLog) -> None:
        self._settings = settings
        self._turn = threading.Lock()
        self._handles: dict[str, int] = {}
        self.lost = 0
        """Lines that could not be written."""

    def decided(self, decision: Decision) -> None:
        """Write down what was decided."""
        if self._settings.enabled:
            self._add(self._settings.decisions, decision.as_json())

    def earned(self, decision: Decision, reward: float) -> None:
        """Write down what a decision came to earn.

        A replay has no place for one that no policy was asked about, or that preferences left no choice about.
        """
        if not self._settings.enabled or decision.opinion is None or decision.source in ("preference", "nothing"):
            return
        if not math.isfinite(reward):
            self._lose(f"the reward of request {decision.request} is {reward}")
            return
        line = {
            "observation": list(decision.opinion.observation.values()),
            "mode": decision.mode,
            "propensity": decision.propensity,
            "reward": reward,
            "allowed": [mode for mode in MODES if mode not in decision.ruled_out],
            "request": decision.request,
            "source": decision.source,
            "version": decision.opinion.version,
        }
        self._add(self._settings.outcomes, line)

    def close(self) -> None:
        """Let go of the files."""
        with self._turn:
            for handle in self._handles.values():
                os.close(handle)
            self._handles = {}

    def _add(self, path: str, fields: Mapping[str, Any]) -> None:
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({**fields, "at": at}).encode() + b"\n"
        try:
            with self._turn:
                if path not in self._handles:
                    Path(path).parent.mkdir(parents=True, exist_ok=True)
                    self._handles[path] = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
                os.write(self._handles[path], line)
        except OSError as error:
            self._lose(f"{path} cannot be written to ({error.strerror})")

    def _lose(self, why: str) -> None:
        self.lost += 1
        if self.lost == 1:
            logger.error("a routing decision is not written down: %s; more such lines are only counted", why)
