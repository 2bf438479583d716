"""A trained policy as it is used: arrays in, probabilities of modes out. No torch.

Axes: E observations, D features, M modes.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fettle.config.router import HeadsConfig, LinearHeads, RouterRewardWeights, SimulatorConfig
from fettle.errors import CheckpointError
from fettle.router.files import METADATA, POLICY, arrays_in, contents_of, object_in
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


class _Needed(BaseModel):
    """What metadata has to say for a policy to be used and held to its world; the rest is for people."""

    model_config = ConfigDict(strict=True)

    policy_sha256: str
    features: Annotated[list[str], Field(min_length=1)]
    policy: HeadsConfig
    simulator: SimulatorConfig
    reward_weights: RouterRewardWeights
    seed: Annotated[int, Field(ge=0)]
    episode_length: Annotated[int, Field(ge=1)]
    decisions: Annotated[int, Field(ge=0)]


def load_policy(folder: Path) -> RouterPolicy:
    """The policy that a run left, if it is whole and what its metadata says.

    Raises:
        CheckpointError: a file is missing, changed, or of another shape or schema.
    """
    path = folder / POLICY
    contents = contents_of(path)
    arrays = arrays_in(contents, path)
    metadata, needed = _metadata(folder / METADATA)
    if hashlib.sha256(contents).hexdigest() != needed.policy_sha256:
        raise CheckpointError(f"{path} is not the file that {METADATA} speaks of: its hash is another; use another run")
    expected = _shapes(len(needed.features), needed.policy)
    found = {name: array.shape for name, array in arrays.items()}
    if found != expected or any(array.dtype != np.float32 for array in arrays.values()):
        raise CheckpointError(f"{path} holds arrays of shapes {found}, not {expected} in float32: use another run")
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise CheckpointError(f"{path} holds numbers that are not finite: use another run")
    return RouterPolicy(arrays, metadata)


def _metadata(path: Path) -> tuple[Mapping[str, Any], _Needed]:
    found = object_in(contents_of(path), path)
    try:
        return found, _Needed.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise CheckpointError(f"{path} has no {place} that can be used: name a folder that a run left") from error


def _shapes(features: int, heads_of: HeadsConfig) -> dict[str, tuple[int, ...]]:
    hidden = None if isinstance(heads_of, LinearHeads) else heads_of.hidden
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
