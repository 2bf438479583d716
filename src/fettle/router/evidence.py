"""The evidence of a candidate: its evaluation is of this very file, is repeated here, and is set beside what is in use.

All of it is simulated.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from fettle.config.routing import PromotionGate
from fettle.errors import CheckpointError, RefusedError
from fettle.intervals import students_interval
from fettle.router.evaluation import EVALUATED, seed_means
from fettle.router.files import EVALUATION, METADATA, POLICY, SCHEMA, contents_of, object_in
from fettle.router.modes import MODES, CollaborationMode
from fettle.router.policy import RouterPolicy, load_policy

TOLERANCE = 1e-4
"""By how much a mean may differ where it is measured again, on a machine that rounds otherwise."""
AGAIN = "evaluate it again with fettle router evaluate"
WORLD = ("simulator", "reward_weights", "episode_length")


class _Said(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    mean: float
    low: float
    high: float


class _Record(BaseModel):
    """What an evaluation has to say; the rest is for people."""

    model_config = ConfigDict(strict=True)

    simulated: Literal[True]
    policy: _Said
    of: dict[str, Any]
    seeds: int
    episodes: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """A policy with an evaluation that is its own."""

    policy: RouterPolicy
    sha256: str
    files: Mapping[str, bytes]
    """What a version keeps of it, by the names of a run's files."""
    gate: PromotionGate
    """Which says on how many seeds, and on how many episodes of each, it is compared."""
    means: tuple[float, ...]
    """What each of these seeds came to, measured here."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """How much more a decision earns than with a rival: the mean over seeds of the difference, with its interval."""

    against: str
    mean: float
    low: float
    high: float
    candidate: float
    """The candidate's own mean."""
    rival: float
    seeds: int
    episodes: int


def candidate_of(folder: Path, gate: PromotionGate) -> Candidate:
    """The policy in a run's folder, with the evidence beside it.

    Raises:
        CheckpointError: there is no policy, or it is not whole.
        RefusedError: the evaluation is missing, not of this policy, too small, or not what is measured here.
    """
    policy = load_policy(folder)
    path = folder / EVALUATION
    if not path.is_file():
        raise RefusedError(f"there is no {path}, and so no evidence: evaluate it with fettle router evaluate")
    files = {name: contents_of(folder / name) for name in (POLICY, METADATA, EVALUATION)}
    sha256 = hashlib.sha256(files[POLICY]).hexdigest()
    if sha256 != policy.metadata["policy_sha256"]:
        raise RefusedError(f"{folder} was changed while it was read: wait until its training is over")
    record = _record(files[EVALUATION], path)
    if record.of.get("policy_sha256") != sha256:
        raise RefusedError(f"{path} is not of the policy beside it, but of another: {AGAIN}")
    if any(record.of.get(name) != policy.metadata.get(name) for name in EVALUATED):
        raise RefusedError(f"{path} was made in another simulator than {METADATA} names: {AGAIN}")
    if (record.seeds, record.episodes) != (gate.seeds, gate.episodes):
        raise RefusedError(
            f"{path} is of {record.seeds} held-out seeds with {record.episodes} episodes each, and {gate.seeds} with "
            f"{gate.episodes} are asked for: {AGAIN}"
        )
    means = _means(policy, policy, gate)
    for name, measured in zip(("mean", "low", "high"), students_interval(means), strict=True):
        said = getattr(record.policy, name)
        if abs(measured - said) > TOLERANCE:
            raise RefusedError(
                f"{path} has {said:.4f} for the policy's {name}, and measured here again it is {measured:.4f}: {AGAIN}"
            )
    return Candidate(policy, sha256, files, gate, means)


def compared(candidate: Candidate, in_use: tuple[int, RouterPolicy] | None) -> Comparison:
    """The candidate beside what is in use, on the gate's held-out seeds; beside the best fixed mode where nothing is.

    Raises:
        RefusedError: the two cannot be compared, or are one.
    """
    world, gate = candidate.policy, candidate.gate
    if in_use is None:
        of_modes = {mode: _means(world, mode, gate) for mode in MODES}
        best = max(of_modes, key=lambda mode: float(np.mean(of_modes[mode])))
        return _comparison(candidate, f"{best} alone", of_modes[best])
    version, rival = in_use
    if rival.metadata["policy_sha256"] == candidate.sha256:
        raise RefusedError(f"version {version}, which is in use, is this very policy: there is nothing to promote")
    for name in (*WORLD, "features"):
        if rival.metadata.get(name) != world.metadata.get(name):
            raise RefusedError(
                f"version {version}, which is in use, was trained with another {name}, and the two cannot be compared: "
                "promote this one in a registry of its own"
            )
    return _comparison(candidate, f"version {version}", _means(world, rival, gate))


def _comparison(candidate: Candidate, against: str, rival: tuple[float, ...]) -> Comparison:
    mean, low, high = students_interval([mine - its for mine, its in zip(candidate.means, rival, strict=True)])
    own, gate = float(np.mean(candidate.means)), candidate.gate
    return Comparison(against, mean, low, high, own, float(np.mean(rival)), gate.seeds, gate.episodes)


def _means(world: RouterPolicy, who: RouterPolicy | CollaborationMode, gate: PromotionGate) -> tuple[float, ...]:
    return tuple(seed_means(who, world.metadata, seeds=gate.seeds, episodes=gate.episodes))


def _record(contents: bytes, path: Path) -> _Record:
    """An evaluation as its file has it."""
    try:
        return _Record.model_validate(object_in(contents, path))
    except CheckpointError as error:
        raise RefusedError(f"{path} is not an evaluation of schema {SCHEMA}: {AGAIN}") from error
    except ValidationError as error:
        place = ".".join(map(str, error.errors()[0]["loc"]))
        raise RefusedError(f"{path} has no {place} that can be used: {AGAIN}") from error
