"""Advantages that compare the episodes of one group.

Axes: G episodes of one group. A failed episode is simply absent from its group, so groups may be of any size; in a
group of one there is nothing to compare with, and its advantage is 0.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from fettle.advantages.finite import Doubles, Numbers, finite

TIE = 1e-6
"""Rewards are equal that differ by no more than this share of the largest of them (or of 1): such a difference is
rounding, and dividing by it would turn noise into advantages of full size."""


def zero_variance(rewards: Numbers) -> bool:
    """Whether a group's rewards [G] are all equal, so that it cannot teach."""
    values = np.asarray(rewards, dtype=np.float64)
    return values.size < 2 or bool(np.ptp(values) <= TIE * max(1.0, np.abs(values).max()))


def group_centered(rewards: Numbers) -> Doubles:
    """``A_i = R_i - mean(R)`` within a group [G] (Liu et al., 2025, arXiv:2503.20783).

    Raises:
        LossInputError: a reward is not a finite number.
    """
    values = finite("reward", rewards)
    return np.zeros_like(values) if zero_variance(values) else values - values.mean()


def group_normalized(rewards: Numbers) -> Doubles:
    """``A_i = (R_i - mean(R)) / std(R)`` within a group [G] (Shao et al., 2024, arXiv:2402.03300).

    The paper does not say which standard deviation; this is the unbiased one, which divides by G - 1, as the
    usual implementations do. Equal rewards give 0, so nothing is added to the divisor.

    Raises:
        LossInputError: a reward is not a finite number.
    """
    centered = group_centered(rewards)
    return centered / centered.std(ddof=1) if centered.any() else centered


def leave_one_out(rewards: Numbers) -> Doubles:
    """``A_i = R_i - mean of the other R_j`` within a group [G] (Ahmadian et al., 2024, arXiv:2402.14740).

    The same as ``G / (G - 1) (R_i - mean(R))``.

    Raises:
        LossInputError: a reward is not a finite number.
    """
    centered = group_centered(rewards)
    return centered * centered.size / max(centered.size - 1, 1)


ADVANTAGES: Mapping[str, Callable[[Numbers], Doubles]] = MappingProxyType(
    {"group_normalized": group_normalized, "group_centered": group_centered, "leave_one_out": leave_one_out}
)
"""Those that compare the episodes of one group, by name; ``batch_normalized`` compares the tokens of a batch."""
