"""The evidence of a candidate: its evaluation is of this very file, is repeated here, and is set beside what is in use.

All of it is simulated.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from fettle.config.routing import PromotionGate
from fettle.errors import RefusedError
from fettle.router.evaluation import EVALUATED, interval, seed_means
from fettle.router.files import EVALUATION, METADATA, POLICY, SCHEMA
from fettle.router.modes import MODES
from fettle.router.policy import RouterPolicy, load_policy

TOLERANCE = 1e-4
"""By how much a mean may differ where it is measured again, on a machine that rounds otherwise."""
AGAIN = "evaluate it again with fettle router evaluate"
WORLD = ("simulator", "reward_weights", "episode_length")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A policy with an evaluation that is its own."""

    policy: RouterPolicy
    sha256: str
    files: Mapping[str, bytes]
    """What a version keeps of it, by the names of a run's files."""
    seeds: int
    episodes: int
    means: tuple[float, ...]
    """What each held-out seed came to, measured here."""


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
    record = _record(folder / EVALUATION)
    try:
        files = {name: (folder / name).read_bytes() for name in (POLICY, METADATA, EVALUATION)}
    except OSError as error:
        raise RefusedError(f"{error.filename} cannot be read ({error.strerror}): see that it is yours") from error
    sha256 = hashlib.sha256(files[POLICY]).hexdigest()
    if sha256 != policy.metadata["policy_sha256"] or json.loads(files[EVALUATION]) != record:
        raise RefusedError(f"{folder} was changed while it was read: wait until its training is over")
    if record["of"].get("policy_sha256") != sha256:
        raise RefusedError(f"{folder / EVALUATION} is not of the policy beside it, but of another: {AGAIN}")
    if any(record["of"].get(name) != policy.metadata.get(name) for name in EVALUATED):
        raise RefusedError(f"{folder / EVALUATION} was made in another simulator than {METADATA} names: {AGAIN}")
    if record["seeds"] < gate.min_seeds:
        raise RefusedError(
            f"{folder / EVALUATION} has {record['seeds']} held-out seeds, and {gate.min_seeds} are asked for: {AGAIN}"
        )
    means = _means(policy, policy, record["seeds"], record["episodes"])
    for name, measured in zip(("mean", "low", "high"), interval(means), strict=True):
        if abs(measured - record["policy"][name]) > TOLERANCE:
            raise RefusedError(
                f"{folder / EVALUATION} has {record['policy'][name]:.4f} for the policy's {name}, and measured here "
                f"again it is {measured:.4f}: {AGAIN}"
            )
    return Candidate(policy, sha256, files, record["seeds"], record["episodes"], means)


def compared(candidate: Candidate, in_use: tuple[int, RouterPolicy] | None) -> Comparison:
    """The candidate beside what is in use, on its own held-out seeds; beside the best fixed mode where nothing is.

    Raises:
        RefusedError: the two cannot be compared, or are one.
    """
    world, seeds, episodes = candidate.policy, candidate.seeds, candidate.episodes
    if in_use is None:
        of_modes = {mode: _means(world, mode, seeds, episodes) for mode in MODES}
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
    return _comparison(candidate, f"version {version}", _means(world, rival, seeds, episodes))


def _comparison(candidate: Candidate, against: str, rival: tuple[float, ...]) -> Comparison:
    mean, low, high = interval([mine - its for mine, its in zip(candidate.means, rival, strict=True)])
    own = float(np.mean(candidate.means))
    return Comparison(against, mean, low, high, own, float(np.mean(rival)), candidate.seeds, candidate.episodes)


def _means(world: RouterPolicy, who: Any, seeds: int, episodes: int) -> tuple[float, ...]:
    try:
        return tuple(seed_means(who, world.metadata, seeds=seeds, episodes=episodes))
    except (ValidationError, KeyError, TypeError, ValueError) as error:
        why = str(error).splitlines()[0]
        raise RefusedError(
            f"{METADATA} does not describe a simulator that the policy can be held to ({why})"
        ) from error


def _record(path: Path) -> Mapping[str, Any]:
    """An evaluation as its file has it."""
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise RefusedError(
            f"there is no {path}, and so no evidence: evaluate it with fettle router evaluate"
        ) from error
    except (OSError, ValueError) as error:
        raise RefusedError(f"{path} cannot be read ({error}): {AGAIN}") from error
    if not isinstance(found, dict) or found.get("schema_version") != SCHEMA or found.get("simulated") is not True:
        raise RefusedError(f"{path} is not an evaluation of schema {SCHEMA}: {AGAIN}")
    policy, of = found.get("policy"), found.get("of")
    counts = [found.get("seeds"), found.get("episodes")]
    numbers = [policy.get(name) for name in ("mean", "low", "high")] if isinstance(policy, dict) else [None]
    if not isinstance(of, dict) or not all(type(each) is int and each > 0 for each in counts):
        raise RefusedError(f"{path} does not say what it is an evaluation of: {AGAIN}")
    if not all(isinstance(each, float | int) for each in numbers):
        raise RefusedError(f"{path} does not say what the policy earned: {AGAIN}")
    return found
