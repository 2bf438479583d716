"""A trained policy as it is used: arrays in, probabilities of modes out. No torch.

Axes: E observations, D features, M modes.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fettle.errors import CheckpointError
from fettle.router.files import METADATA, POLICY, SCHEMA, read_arrays
from fettle.router.modes import MODES
from fettle.router.nouns import Choices, Doubles
from fettle.types import Floats


@dataclass(frozen=True, slots=True)
class RouterPolicy:
    """What a run learned."""

    arrays: Mapping[str, NDArray[Any]]
    metadata: Mapping[str, Any]
    """Of the run that it comes from."""

    def probabilities(self, observations: Floats) -> Doubles:
        """Of each mode [E, M]."""
        logits = self._hidden("policy", observations) @ self.arrays["policy_w"] + self.arrays["policy_b"]
        odds = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
        return np.asarray(odds / odds.sum(-1, keepdims=True))

    def values(self, observations: Floats) -> Doubles:
        """What the critic expects from here on [E], in the reward's own units."""
        return np.asarray(self._hidden("value", observations) @ self.arrays["value_w"] + self.arrays["value_b"])

    def modes(self, observations: Floats) -> Choices:
        """The likeliest mode of each [E]."""
        return np.asarray(self.probabilities(observations).argmax(-1))

    def _hidden(self, head: str, observations: Floats) -> Floats:
        if f"{head}_hidden_w" not in self.arrays:
            return observations
        found: Floats = np.tanh(observations @ self.arrays[f"{head}_hidden_w"] + self.arrays[f"{head}_hidden_b"])
        return found


def load_policy(folder: Path) -> RouterPolicy:
    """The policy that a run left, if it is whole and what its metadata says.

    Raises:
        CheckpointError: a file is missing, changed, or of another shape or schema.
    """
    path = folder / POLICY
    arrays = read_arrays(path)
    metadata = _metadata(folder / METADATA)
    if hashlib.sha256(path.read_bytes()).hexdigest() != metadata["policy_sha256"]:
        raise CheckpointError(f"{path} is not the file that {METADATA} speaks of: its hash is another; use another run")
    features = len(metadata["features"])
    expected = _shapes(features, metadata["policy"].get("hidden"))
    found = {name: array.shape for name, array in arrays.items()}
    if found != expected:
        raise CheckpointError(f"{path} holds arrays of shapes {found}, not {expected}: use another run")
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise CheckpointError(f"{path} holds numbers that are not finite: use another run")
    return RouterPolicy(arrays, metadata)


def _metadata(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}): name a folder that a run left") from error
    if not isinstance(found, dict) or found.get("schema_version") != SCHEMA:
        raise CheckpointError(f"{path} is not of schema {SCHEMA}: train again with this release")
    missing = {"policy_sha256", "features", "policy", "simulator", "reward_weights", "seed"} - found.keys()
    if missing:
        raise CheckpointError(f"{path} has no {', '.join(sorted(missing))}: name a folder that a run left")
    return found


def _shapes(features: int, hidden: int | None) -> dict[str, tuple[int, ...]]:
    width = features if hidden is None else hidden
    heads: dict[str, tuple[int, ...]] = {
        "policy_w": (width, len(MODES)),
        "policy_b": (len(MODES),),
        "value_w": (width,),
        "value_b": (1,),
    }
    if hidden is not None:
        for head in ("policy", "value"):
            heads |= {f"{head}_hidden_w": (features, hidden), f"{head}_hidden_b": (hidden,)}
    return heads
