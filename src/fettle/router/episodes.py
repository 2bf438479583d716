"""Episodes played side by side by the policy that is being trained.

Axes: T decisions in a row, E episodes at once, D features.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fettle.config.router import RouterRewardWeights
from fettle.router.heads import Parameters, Scale, logits, values
from fettle.router.nouns import Choices, Doubles, Seen, Terms, World
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
    """Episodes under way. A rollout goes on where the last one ended, and what is cut is never lost."""

    def __init__(self, world: World, weights: RouterRewardWeights, *, length: int) -> None:
        self._world = world
        self._weights = weights
        self._length = length
        self._number = 0
        self._seen: Seen | None = None
        self._modes: list[Choices] = []
        """Of the episodes under way: with their number, all that they hang on."""
        self._earned = np.zeros(world.count)

    def play(self, parameters: Parameters, scale: Scale, decisions: int, rng: np.random.Generator) -> Rollout:
        """The next ``decisions`` of every episode, with modes drawn from the policy."""
        steps, ended = [], []
        for _ in range(decisions):
            steps.append(self._step(parameters, scale, rng))
            if len(self._modes) == self._length:
                ended.append(self._earned)
                self._number, self._seen = self._number + 1, None
        joined = {name: np.stack([step[name] for step in steps]) for name in steps[0]}
        terms = {name.removeprefix("term/"): joined.pop(name) for name in list(joined) if name.startswith("term/")}
        return Rollout(
            **joined,
            terms=terms,
            episode_returns=np.concatenate(ended) if ended else self._earned,
            episode_length=float(self._length if ended else len(self._modes)),
        )

    def _step(self, parameters: Parameters, scale: Scale, rng: np.random.Generator) -> dict[str, Any]:
        before = self._begun()
        modes, logprobs = drawn(parameters, before.observations, rng)
        after, terms, rewards = self._decided(modes)
        last = len(self._modes) == self._length
        return {
            "observations": before.observations,
            "modes": modes,
            "logprobs": logprobs,
            "values": _expected(parameters, scale, before.observations),
            "next_values": _expected(parameters, scale, after.observations),
            "truncated": np.full(self._world.count, float(last)),
            "rewards": rewards,
            "planning": before.planning,
            **{f"term/{name}": values for name, values in terms.items()},
        }

    def _begun(self) -> Seen:
        if self._seen is None:
            self._seen = self._world.begin(self._number)
            self._modes, self._earned = [], np.zeros(self._world.count)
        return self._seen

    def _decided(self, modes: Choices) -> tuple[Seen, Terms, Doubles]:
        self._seen, terms = self._world.step(modes)
        rewards = reward(terms, self._weights)
        self._modes.append(modes)
        self._earned = self._earned + rewards
        return self._seen, terms, rewards

    def saved(self) -> dict[str, NDArray[Any]]:
        """What :meth:`restore` goes on from."""
        under_way = self._modes if self._seen is not None else []
        modes = np.array(under_way, np.int64).reshape(len(under_way), self._world.count)
        return {"number": np.array(self._number), "modes": modes}

    def restore(self, saved: Mapping[str, NDArray[Any]]) -> None:
        """Go on from what was saved: the same decisions in the same episodes lead to the same place."""
        self._number, self._seen = int(saved["number"]), None
        self._begun()
        for modes in saved["modes"]:
            self._decided(modes)


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
