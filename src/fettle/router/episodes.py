"""Episodes played side by side by the policy that is being trained.

Axes: T decisions in a row, E episodes at once, D features.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fettle.config.router import RouterRewardWeights
from fettle.router.heads import Parameters, Scale, logits, values
from fettle.router.nouns import Choices, Doubles, Simulator, State, Terms
from fettle.router.simulators import reward
from fettle.types import Floats


@dataclass(frozen=True, slots=True)
class Rollout:
    """What was decided, and what came of it; all but the last two are [T, E]."""

    observations: Floats
    """[T, E, D]"""
    modes: Choices
    logprobs: Floats
    """With which the modes were drawn."""
    values: Doubles
    """What the critic expected of what a decision started from."""
    next_values: Doubles
    """What it expected of where the decision led."""
    truncated: Doubles
    rewards: Doubles
    planning: Floats
    terms: Terms
    episode_returns: Doubles
    """Of the episodes that ended; of those under way where none did."""
    episode_length: float
    """Decisions of those episodes, on average."""


class Episodes:
    """They begin together, and end together by their length; the next begin where they end."""

    def __init__(self, simulator: Simulator, weights: RouterRewardWeights, *, count: int, length: int) -> None:
        self._simulator = simulator
        self._weights = weights
        self._count = count
        self._length = length
        self._state: State = {}
        self._at = 0
        self._earned = np.zeros(count)

    def play(self, parameters: Parameters, scale: Scale, decisions: int, rng: np.random.Generator) -> Rollout:
        """The next ``decisions`` of every episode, with modes drawn from the policy."""
        steps, ended = [], []
        if not self._state:
            self._state = self._simulator.start(self._count, rng)
        for _ in range(decisions):
            step = self._step(parameters, scale, rng)
            steps.append(step)
            self._earned = self._earned + step["rewards"]
            self._at += 1
            if self._at == self._length:
                ended.append(self._earned)
                self._state, self._at = self._simulator.start(self._count, rng), 0
                self._earned = np.zeros(self._count)
        joined = {name: np.stack([step[name] for step in steps]) for name in steps[0]}
        terms = {name.removeprefix("term/"): joined.pop(name) for name in list(joined) if name.startswith("term/")}
        return Rollout(
            **joined,
            terms=terms,
            episode_returns=np.concatenate(ended) if ended else self._earned,
            episode_length=float(self._length if ended else self._at),
        )

    def _step(self, parameters: Parameters, scale: Scale, rng: np.random.Generator) -> dict[str, Any]:
        observed = self._simulator.observations(self._state)
        planning = self._simulator.planning(self._state)
        modes, logprobs = drawn(parameters, observed, rng)
        self._state, terms = self._simulator.step(self._state, modes, rng)
        last = self._at + 1 == self._length
        return {
            "observations": observed,
            "modes": modes,
            "logprobs": logprobs,
            "values": _expected(parameters, scale, observed),
            "next_values": _expected(parameters, scale, self._simulator.observations(self._state)),
            "truncated": np.full(self._count, float(last)),
            "rewards": reward(terms, self._weights),
            "planning": planning,
            **{f"term/{name}": values for name, values in terms.items()},
        }

    def saved(self) -> dict[str, Doubles]:
        """What :meth:`restore` goes on from."""
        kept = {f"state/{name}": values for name, values in self._state.items()}
        return {**kept, "earned": self._earned, "at": np.array(float(self._at))}

    def restore(self, saved: dict[str, Doubles]) -> None:
        """Go on from what was saved."""
        self._state = {
            name.removeprefix("state/"): values for name, values in saved.items() if name.startswith("state/")
        }
        self._earned, self._at = saved["earned"], int(saved["at"])


def drawn(parameters: Parameters, observations: Floats, rng: np.random.Generator) -> tuple[Choices, Floats]:
    """A mode for each observation [E], and the logarithm of the probability with which it was drawn."""
    with torch.no_grad():
        logprobs = logits(parameters, torch.from_numpy(observations)).log_softmax(-1).numpy()
    upto = np.exp(logprobs.astype(np.float64)).cumsum(-1)
    modes = (rng.random(len(upto))[:, None] * upto[:, -1:] >= upto).sum(-1)
    return modes, logprobs[np.arange(len(modes)), modes]


def _expected(parameters: Parameters, scale: Scale, observations: Floats) -> Doubles:
    with torch.no_grad():
        said = values(parameters, torch.from_numpy(observations)).numpy()
    return said.astype(np.float64) * scale.deviation + scale.mean
