"""Bandits that a learned policy is held against: Thompson sampling, without and with the observation.

Axes: E decisions at once, D features, M modes.
"""

import numpy as np

from fettle.router.modes import MODES
from fettle.router.nouns import Choices, Doubles
from fettle.types import Floats


class Thompson:
    """A normal belief of each mode's mean reward, from N(0, 1) with noise of variance 1 (Thompson, 1933)."""

    def __init__(self) -> None:
        self._sums = np.zeros(len(MODES))
        self._counts = np.ones(len(MODES))

    def modes(self, observations: Floats, rng: np.random.Generator) -> Choices:
        """The best mode [E] by one draw of the belief each."""
        spread = rng.standard_normal((len(observations), len(MODES))) / np.sqrt(self._counts)
        return np.asarray((self._sums / self._counts + spread).argmax(-1))

    def learn(self, observations: Floats, modes: Choices, rewards: Doubles) -> None:
        """What the modes earned [E]."""
        self._sums += np.bincount(modes, rewards, len(MODES))
        self._counts += np.bincount(modes, minlength=len(MODES))


class LinearThompson:
    """A normal belief of each mode's reward as a linear function of the observation (arXiv:1209.3352)."""

    def __init__(self, features: int) -> None:
        self._precision = np.stack([np.eye(features + 1)] * len(MODES))
        self._sums = np.zeros((len(MODES), features + 1))

    def modes(self, observations: Floats, rng: np.random.Generator) -> Choices:
        """The best mode [E] by one draw of the belief each."""
        covariance = np.linalg.inv(self._precision)
        roots = np.linalg.cholesky(covariance)
        means = np.einsum("mij,mj->mi", covariance, self._sums)
        drawn = rng.standard_normal((len(observations), len(MODES), means.shape[1]))
        weights = means + np.einsum("mij,emj->emi", roots, drawn)
        return np.asarray(np.einsum("emi,ei->em", weights, _with_one(observations)).argmax(-1))

    def learn(self, observations: Floats, modes: Choices, rewards: Doubles) -> None:
        """What the modes earned [E]."""
        seen = _with_one(observations)
        for mode in range(len(MODES)):
            x = seen[modes == mode]
            self._precision[mode] += x.T @ x
            self._sums[mode] += x.T @ rewards[modes == mode]


def _with_one(observations: Floats) -> Doubles:
    return np.concatenate([np.ones((len(observations), 1)), observations], axis=-1)
