"""What a policy says of one request, and what in the request made it say so.

Axes: D features, M modes.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from types import MappingProxyType

import numpy as np

from fettle.errors import CheckpointError, DataError, did_you_mean
from fettle.router.amounts import amount
from fettle.router.modes import MODES, CollaborationMode
from fettle.router.policy import RouterPolicy
from fettle.types import Floats

BIAS = "bias"
"""In the place of a feature: what a linear policy adds whatever it sees."""

LARGEST = 1e6
"""Beyond this a feature is a mistake of the request, and what a policy says of it is no fault of the policy's."""

CONSIDERED = 64
"""Names of features, and letters of one, that are looked through for a name that was probably meant."""

ByMode = Mapping[CollaborationMode, float]


@dataclass(frozen=True, slots=True)
class Opinion:
    """What a policy says of one request."""

    version: int | None
    """Of the registry; None of a run's folder."""
    observation: Mapping[str, float]
    """The features that it saw, in its order."""
    probabilities: ByMode
    value: float
    """The reward that its critic expects from here on, in the simulator that it was trained in."""
    contributions: Mapping[str, ByMode] | None
    """What each feature added to the logit of each mode, and the bias; None of a policy that is not linear."""


def opinion(policy: RouterPolicy, task: Mapping[str, float], version: int | None) -> Opinion:
    """What the policy says of a task with these features; others than its own are left aside.

    Raises:
        DataError: a feature is missing, or no number that could be one.
        CheckpointError: what the policy says is not finite.
    """
    names = tuple(policy.metadata["features"])
    read = [_feature(name, task) for name in names]
    observed = np.array(read, np.float32)
    probabilities, value = policy.probabilities(observed[None])[0], float(policy.values(observed[None])[0])
    if not (np.isfinite(probabilities).all() and math.isfinite(value)):
        raise CheckpointError("the policy says numbers that are not finite: roll back to another")
    return Opinion(
        version,
        MappingProxyType(dict(zip(names, read, strict=True))),
        _by_mode(probabilities.tolist()),
        value,
        _contributions(policy, names, observed),
    )


def _feature(name: str, task: Mapping[str, object]) -> float:
    given = task.get(name)
    if given is None:
        spelt = [each[:CONSIDERED] for each in islice(task, CONSIDERED) if isinstance(each, str)]
        raise DataError(f"the request has no feature {name}, which the policy reads{did_you_mean(name, spelt)}")
    number = amount(given)
    if number is None or not abs(number) <= LARGEST:
        what = f"of type {type(given).__name__}" if number is None else f"{number:g}"
        raise DataError(f"the request's feature {name} is {what}: it must be a number of at most {LARGEST:g}")
    return number


def _contributions(policy: RouterPolicy, names: tuple[str, ...], observed: Floats) -> Mapping[str, ByMode] | None:
    if "policy_hidden_w" in policy.arrays:
        return None
    added = observed[:, None] * policy.arrays["policy_w"]  # [D, M]
    rows = {name: _by_mode(row) for name, row in zip(names, added.tolist(), strict=True)}
    return MappingProxyType({**rows, BIAS: _by_mode(policy.arrays["policy_b"].tolist())})


def _by_mode(values: list[float]) -> ByMode:
    return MappingProxyType(dict(zip(MODES, values, strict=True)))
