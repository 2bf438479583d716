"""Credit: the rewards of a batch in, one advantage a token out.

Axes: G episodes of one group, T tokens of one sequence. A failed episode is simply absent from its group, so
groups may be of any size; in a group of one there is nothing to compare with, and its advantage is 0.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from fettle.config import Advantage
from fettle.errors import LossInputError
from fettle.types import Floats

Doubles = NDArray[np.float64]
Rewards = Sequence[float] | Doubles

TIE = 1e-6
"""Rewards are equal that differ by no more than this share of the largest of them (or of 1): such a difference is
rounding, and dividing by it would turn noise into advantages of full size."""


def zero_variance(rewards: Rewards) -> bool:
    """Whether a group's rewards [G] are all equal, so that it cannot teach."""
    values = np.asarray(rewards, dtype=np.float64)
    return values.size < 2 or bool(np.ptp(values) <= TIE * max(1.0, np.abs(values).max()))


def group_centered(rewards: Rewards) -> Doubles:
    """``A_i = R_i - mean(R)`` within a group [G] (Liu et al., 2025, arXiv:2503.20783).

    Raises:
        LossInputError: a reward is not a finite number.
    """
    values = _finite("reward", rewards)
    return np.zeros_like(values) if zero_variance(values) else values - values.mean()


def group_normalized(rewards: Rewards) -> Doubles:
    """``A_i = (R_i - mean(R)) / std(R)`` within a group [G] (Shao et al., 2024, arXiv:2402.03300).

    The paper does not say which standard deviation; this is the unbiased one, which divides by G - 1, as the
    usual implementations do. Equal rewards give 0, so nothing is added to the divisor.

    Raises:
        LossInputError: a reward is not a finite number.
    """
    centered = group_centered(rewards)
    return centered / centered.std(ddof=1) if centered.any() else centered


def leave_one_out(rewards: Rewards) -> Doubles:
    """``A_i = R_i - mean of the other R_j`` within a group [G] (Ahmadian et al., 2024, arXiv:2402.14740).

    The same as ``G / (G - 1) (R_i - mean(R))``.

    Raises:
        LossInputError: a reward is not a finite number.
    """
    centered = group_centered(rewards)
    return centered * centered.size / max(centered.size - 1, 1)


ADVANTAGES: Mapping[str, Callable[[Rewards], Doubles]] = MappingProxyType(
    {"group_normalized": group_normalized, "group_centered": group_centered, "leave_one_out": leave_one_out}
)
"""Those that compare the episodes of one group, by name; ``batch_normalized`` compares the tokens of a batch."""


def return_to_go(rewards: Rewards) -> Doubles:
    """``R_t = Σ_{i≥t} r_i`` over one sequence [T], undiscounted."""
    return np.cumsum(np.asarray(rewards, dtype=np.float64)[::-1])[::-1]


def batch_normalized(advantages: Sequence[Floats | Doubles], loss_masks: Sequence[Floats]) -> list[Doubles]:
    """``(A - mean) / std`` over all trained tokens of a batch, each array [T] (Hu et al., 2025, arXiv:2501.03262).

    The standard deviation is the population's, over tokens. Masked tokens get 0; if all are equal, so do all.

    Raises:
        LossInputError: an advantage is not a finite number.
    """
    trained = [mask > 0 for mask in loss_masks]
    tokens = _finite("advantage", np.concatenate([values[t] for values, t in zip(advantages, trained, strict=True)]))
    if zero_variance(tokens):
        return [np.zeros(len(mask)) for mask in loss_masks]
    mean, std = tokens.mean(), tokens.std()
    return [np.where(t, (values - mean) / std, 0) for values, t in zip(advantages, trained, strict=True)]


def overlong_penalty(length: int, *, max_tokens: int, buffer: float) -> float:
    """Soft overlong punishment, eq. 13 of Yu et al., 2025 (arXiv:2503.14476), to be added to the reward::

        0                                 |y| ≤ L_max - L_cache
        ((L_max - L_cache) - |y|) / L_cache     up to L_max
        -1                                beyond

    L_max is ``max_tokens``, and ``buffer`` is L_cache as a share of it.
    """
    cache = buffer * max_tokens
    return float(np.clip((max_tokens - cache - length) / cache, -1.0, 0.0))


def credit(
    advantage: Advantage,
    *,
    groups: Sequence[str],
    rewards: Sequence[float],
    loss_masks: Sequence[Floats],
    penalties: Sequence[Floats] | None = None,
) -> list[Floats]:
    """The advantages [T] of every sequence of a batch; masked tokens get 0.

    ``penalties`` [T] is what each token costs in the reward (``losses.reward_penalty``). A group's advantages take
    all of it off the sequence's reward before comparing, as in RLOO; ``batch_normalized`` takes off each token's
    what is still to come, as in REINFORCE++: ``A_t = R - β Σ_{i≥t} KL_i``.

    Raises:
        LossInputError: a reward or a penalty is not a finite number.
    """
    _finite("reward", rewards)
    costs = [np.zeros(len(mask)) for mask in loss_masks]
    if penalties is not None:
        costs = [np.where(mask > 0, cost, 0) for mask, cost in zip(loss_masks, penalties, strict=True)]
    if advantage == "batch_normalized":
        returns = [reward - return_to_go(cost) for reward, cost in zip(rewards, costs, strict=True)]
        return [values.astype(np.float32) for values in batch_normalized(returns, loss_masks)]
    earned = np.array([reward - cost.sum() for reward, cost in zip(rewards, costs, strict=True)])
    names = np.array(groups)
    by_sequence = np.zeros(len(earned))
    for name in dict.fromkeys(groups):
        by_sequence[names == name] = ADVANTAGES[advantage](earned[names == name])
    return [np.where(mask > 0, a, 0).astype(np.float32) for mask, a in zip(loss_masks, by_sequence, strict=True)]


def _finite(noun: str, given: Rewards) -> Doubles:
    values = np.asarray(given, dtype=np.float64)
    if not np.isfinite(values).all():
        at = int(np.flatnonzero(~np.isfinite(values))[0])
        raise LossInputError(f"{noun} {at} of {values.size} is {values[at]}: every {noun} must be a finite number")
    return values
