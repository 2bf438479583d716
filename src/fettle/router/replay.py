"""Decisions that a router logged, and what another policy would have earned in its place.

Axes: N decisions, D features, M modes.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from fettle.errors import DataError
from fettle.router.modes import MODES
from fettle.router.nouns import Choices, Doubles
from fettle.types import Floats

Z = 1.96
RIDGE = 1.0
"""What holds the coefficients of the reward's model near 0."""
FIELDS = ("observation", "mode", "propensity", "reward")
LARGEST = 1e6
"""Of an observation's numbers and of rewards: what is beyond it is no feature and no reward, and drowns the others."""
RAREST = 1e-6
"""Of propensities: one decision that was rarer would count for a million others."""


@dataclass(frozen=True, slots=True)
class Log:
    """Logged decisions."""

    observations: Floats
    """[N, D]"""
    modes: Choices
    propensities: Doubles
    """With which the router drew the mode that it took [N]."""
    rewards: Doubles
    malformed: tuple[tuple[int, str], ...]
    """The number of each line that is no decision, and why; none of them counts."""
    allowed: Doubles | None = None
    """1 for the modes that were to be had [N, M]; None where all were."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean reward of a decision, and its 95 % interval."""

    mean: float
    low: float
    high: float


def read_log(path: Path, *, features: int) -> Log:
    """The decisions in a JSONL file: ``observation``, ``mode``, ``propensity`` and ``reward`` on each line.

    A line may have ``allowed``, the modes that were to be had, where not all were.

    Raises:
        DataError: the file cannot be read, or holds no decision.
    """
    try:
        text = path.read_text(encoding="utf-8").removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as text ({error}): name a JSONL file of decisions") from error
    rows: list[Mapping[str, Any]] = []
    malformed: list[tuple[int, str]] = []
    for number, line in enumerate(text.split("\n") if text else (), start=1):
        try:
            rows.append(_decision(line, features))
        except ValueError as error:
            malformed.append((number, str(error)))
    if not rows:
        why = f"; line {malformed[0][0]}: {malformed[0][1]}" if malformed else ""
        raise DataError(f"{path} holds no decision{why}: each line is an object of {', '.join(FIELDS)}")
    return Log(
        np.array([row["observation"] for row in rows], np.float32),
        np.array([MODES.index(row["mode"]) for row in rows]),
        np.array([row["propensity"] for row in rows], np.float64),
        np.array([row["reward"] for row in rows], np.float64),
        tuple(malformed),
        np.array([[float(mode in row.get("allowed", MODES)) for mode in MODES] for row in rows]),
    )


def _decision(line: str, features: int) -> Mapping[str, Any]:
    """One line's, or a ValueError that says what is wrong with it."""
    row = _object(line)
    if row is None or any(name not in row for name in FIELDS):
        raise ValueError(f"not an object of {', '.join(FIELDS)}")
    observation = row["observation"]
    if not isinstance(observation, list) or len(observation) != features or not all(map(_number, observation)):
        raise ValueError(f"observation is not {features} numbers from -{LARGEST:g} to {LARGEST:g}")
    _check_modes(row["mode"], row.get("allowed", list(MODES)))
    if not _number(row["propensity"]) or not RAREST <= row["propensity"] <= 1:
        raise ValueError(f"propensity is not {RAREST:g} or more, and at most 1")
    if not _number(row["reward"]):
        raise ValueError(f"reward is not a number from -{LARGEST:g} to {LARGEST:g}")
    return row


def _object(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _check_modes(mode: object, allowed: object) -> None:
    if mode not in MODES:
        raise ValueError(f"mode is none of {', '.join(MODES)}")
    if not isinstance(allowed, list):
        raise ValueError("allowed is not a list of modes")
    for each in allowed:
        if each not in MODES:
            raise ValueError(f"allowed has {each!r}, which is none of {', '.join(MODES)}")
    if mode not in allowed:
        raise ValueError("mode is not among those allowed")


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -LARGEST <= value <= LARGEST


def within_reach(log: Log, probabilities: Doubles) -> Doubles:
    """The probabilities [N, M] of a policy that takes its mode among those that were to be had."""
    if log.allowed is None:
        return probabilities
    kept = np.maximum(probabilities, np.finfo(np.float64).tiny) * log.allowed
    return np.asarray(kept / kept.sum(-1, keepdims=True))


def likeliest(probabilities: Doubles) -> Doubles:
    """1 for the mode that is likeliest, 0 for the others [N, M]: a router in use draws nothing."""
    return np.asarray(np.eye(len(MODES))[probabilities.argmax(-1)])


def estimates(log: Log, probabilities: Doubles) -> Mapping[str, Estimate]:
    """What a policy with these ``probabilities`` [N, M] would have earned, by three estimators::

        ips               mean(w r)                               (Horvitz and Thompson, 1952)
        self_normalized   Σ w r / Σ w                             (Swaminathan and Joachims, 2015)
        doubly_robust     mean(Σ_a π(a) q(a) + w (r - q(taken)))  (arXiv:1103.4601)

    w is π(taken) over the propensity. The model q of the reward is fitted to the half of the log that it is not used
    on. All three need the log to hold every mode that the policy would take.

    Raises:
        DataError: it holds none of them.
    """
    taken = np.arange(len(log.modes)), log.modes
    w, r, q = probabilities[taken] / log.propensities, log.rewards, _cross_fitted(log)
    if not w.any():
        raise DataError("no logged decision is one that the policy would take, so that nothing can be estimated")
    ratio = float((w * r).sum() / w.sum())
    residual = w * (r - ratio) / w.mean()
    found = {
        "ips": w * r,
        "self_normalized": ratio + residual,
        "doubly_robust": (probabilities * q).sum(-1) + w * (r - q[taken]),
    }
    return MappingProxyType({name: _with_interval(values) for name, values in found.items()})


def effective_sample_size(log: Log, probabilities: Doubles) -> float:
    """``(Σ w)² / Σ w²``: as many decisions as the log is worth to this policy."""
    w = probabilities[np.arange(len(log.modes)), log.modes] / log.propensities
    return float(w.sum() ** 2 / np.square(w).sum()) if w.any() else 0.0


def _with_interval(values: Doubles) -> Estimate:
    mean = float(values.mean())
    half = Z * float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.inf
    return Estimate(mean, mean - half, mean + half)


def _cross_fitted(log: Log) -> Doubles:
    """The reward to be expected of every mode [N, M], each half by the model of the other."""
    seen = _quadratic(log.observations)
    half = np.arange(len(seen)) % 2 == 0
    expected = np.zeros((len(seen), len(MODES)))
    for fitted, used in ((half, ~half), (~half, half)):
        for mode in range(len(MODES)):
            of_mode = fitted & (log.modes == mode)
            x = seen[of_mode]
            weights = np.linalg.solve(x.T @ x + RIDGE * np.eye(x.shape[1]), x.T @ log.rewards[of_mode])
            expected[used, mode] = seen[used] @ weights
    return expected


def _quadratic(observations: Floats) -> Doubles:
    """1, the features, and their products."""
    x = observations.astype(np.float64)
    products = np.einsum("ni,nj->nij", x, x)[:, *np.triu_indices(x.shape[1])]
    return np.concatenate([np.ones((len(x), 1)), x, products], axis=-1)
