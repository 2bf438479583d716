"""Coefficients that hold a divergence near a target or under a limit: the one of this step in, the next one out.

``measured`` is the divergence that was found, in nats, as a mean over whatever the target speaks of.
"""

import math

from fettle.errors import ConfigError, LossInputError

LOWEST, HIGHEST = 1e-8, 1e8
"""Between these a coefficient stays: one that were halved to 0 could never be doubled again."""

LARGEST_ERROR = 0.2
"""A proportional controller takes no error for larger than this, so that one odd batch changes little."""


def adapted(coefficient: float, measured: float, *, target: float) -> float:
    """The adaptive KL penalty of PPO, section 4 of Schulman et al., 2017 (arXiv:1707.06347)::

        β / 2     if d < d_target / 1.5
        2 β       if d > 1.5 d_target
        β         between

    Raises:
        LossInputError: what was measured is not a finite number.
    """
    d = _finite(measured)
    factor = 0.5 if d < target / 1.5 else 2.0 if d > 1.5 * target else 1.0
    return _held(coefficient * factor)


def proportional(coefficient: float, measured: float, *, target: float, horizon: float, samples: int) -> float:
    """The proportional controller of Ziegler et al., 2019 (arXiv:1909.08593), section 2.2::

        e = clip(d / d_target - 1, -0.2, 0.2)
        β' = β (1 + e samples / horizon)

    ``samples`` is the number of sequences since the last change; over ``horizon`` of them, β changes by a fifth
    at most.

    Raises:
        ConfigError: the horizon is so short that one batch could bring the coefficient to 0.
        LossInputError: what was measured is not a finite number.
    """
    if LARGEST_ERROR * samples >= horizon:
        raise ConfigError(f"a horizon of {horizon:g} is too short for {samples} samples at once: make it longer")
    error = min(max(_finite(measured) / target - 1, -LARGEST_ERROR), LARGEST_ERROR)
    return _held(coefficient * (1 + error * samples / horizon))


def dual_ascent(multiplier: float, measured: float, *, limit: float, rate: float) -> float:
    """``λ' = max(0, λ + rate (d - limit))``: the multiplier of the constraint ``d ≤ limit`` goes up while it is broken.

    One step up the dual function (Boyd and Vandenberghe, 2004, "Convex optimization", chapter 5): it rests at 0 where
    the constraint does not bind.

    Raises:
        LossInputError: what was measured is not a finite number.
    """
    return max(0.0, multiplier + rate * (_finite(measured) - limit))


def quadratic_penalty(measured: float, *, limit: float, coefficient: float) -> float:
    """``c max(0, d - limit)²``: soft, for all its steepness; a divergence may pass the limit where it pays.

    Raises:
        LossInputError: what was measured is not a finite number.
    """
    return coefficient * max(0.0, _finite(measured) - limit) ** 2


def quadratic_slope(measured: float, *, limit: float, coefficient: float) -> float:
    """``2 c max(0, d - limit)``, the derivative of :func:`quadratic_penalty` by d.

    The gradient of the penalty of a batch's mean divergence is this number times the gradient of the mean. As the
    coefficient of a KL term it therefore makes the penalty a sum over tokens, which may be split into micro-batches.

    Raises:
        LossInputError: what was measured is not a finite number.
    """
    return 2 * coefficient * max(0.0, _finite(measured) - limit)


def _held(coefficient: float) -> float:
    return min(max(coefficient, LOWEST), HIGHEST)


def _finite(measured: float) -> float:
    if not math.isfinite(measured):
        raise LossInputError(f"the measured divergence is {measured}: it must be a finite number")
    return measured
