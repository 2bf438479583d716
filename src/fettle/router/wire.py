"""What a server of routing episodes and its clients say to each other: JSON, with every number to its last bit.

Axes: E episodes, D features.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from fettle.errors import EnvironmentFault
from fettle.router.modes import MODES
from fettle.router.nouns import SIGNS, Choices, Seen, Terms

NAME = "routing"
"""What a server calls these episodes."""
SETTINGS = ("simulator", "episodes", "episode_length", "seed")
"""What a client chooses."""


def seen_out(seen: Seen, terms: Terms | None = None) -> str:
    """What the episodes show, and what the last decisions led to."""
    told: dict[str, Any] = {"observations": seen.observations.tolist(), "planning": seen.planning.tolist()}
    if terms is not None:
        told["terms"] = {name: values.tolist() for name, values in terms.items()}
    return json.dumps(told)


def seen_in(text: str, *, count: int, features: int) -> tuple[Seen, Terms]:
    """What a server told; no terms where it told of none.

    Raises:
        EnvironmentFault: it is not what ``seen_out`` gives of that many episodes.
    """
    try:
        told = json.loads(text)
        seen = Seen(np.array(told["observations"], np.float32), np.array(told["planning"], np.float32))
        terms = {name: np.array(values, np.float64) for name, values in told.get("terms", {}).items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise EnvironmentFault(f"the rollout service answered with something else than episodes: {error}") from error
    shapes = [seen.observations.shape, seen.planning.shape, *(values.shape for values in terms.values())]
    if shapes != [(count, features), *[(count,)] * (1 + len(terms))] or (terms and terms.keys() != SIGNS.keys()):
        raise EnvironmentFault(f"the rollout service answered with shapes {shapes} for {count} episodes: name another")
    return seen, terms


def modes_out(modes: Choices) -> str:
    """A decision for each episode."""
    return json.dumps({"modes": modes.tolist()})


def modes_in(text: str, *, count: int) -> Choices:
    """The decision for each episode; the name of a mode is that mode for all of them.

    Raises:
        EnvironmentFault: it is neither.
    """
    if text in MODES:
        return np.full(count, MODES.index(text))
    try:
        told: Mapping[str, Any] = json.loads(text)
        modes = np.array(told["modes"])
    except (ValueError, TypeError, KeyError) as error:
        raise EnvironmentFault(_asked(count)) from error
    if modes.shape != (count,) or modes.dtype.kind != "i" or not ((modes >= 0) & (modes < len(MODES))).all():
        raise EnvironmentFault(_asked(count))
    return modes.astype(np.int64)


def _asked(count: int) -> str:
    return f'a decision is one of {", ".join(MODES)}, or {{"modes": [...]}} with {count} numbers from 0 to 4'
