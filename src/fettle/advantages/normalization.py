"""Advantages put on one scale: whose mean is taken off, and by whose standard deviation is divided.

Axes: T tokens of one sequence. What is normalised here are the advantages alone: the returns that a critic learns
keep the scale of the rewards.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from fettle.advantages.finite import Doubles, finite
from fettle.advantages.group import zero_variance
from fettle.types import Floats

Scope = Literal["none", "batch", "group"]


def batch_normalized(advantages: Sequence[Floats | Doubles], loss_masks: Sequence[Floats]) -> list[Doubles]:
    """``(A - mean) / std`` over all trained tokens of a batch, each array [T] (Hu et al., 2025, arXiv:2501.03262).

    The standard deviation is the population's, over tokens. Masked tokens get 0; if all are equal, so do all.

    Raises:
        LossInputError: an advantage is not a finite number.
    """
    trained = [mask > 0 for mask in loss_masks]
    counted = (values[t] for values, t in zip(advantages, trained, strict=True))
    tokens = finite("advantage", np.concatenate([np.zeros(0), *counted]))
    if zero_variance(tokens):
        return [np.zeros(len(mask)) for mask in loss_masks]
    mean, std = tokens.mean(), tokens.std()
    return [np.where(t, (values - mean) / std, 0) for values, t in zip(advantages, trained, strict=True)]


def normalized(
    advantages: Sequence[Floats | Doubles], loss_masks: Sequence[Floats], groups: Sequence[str], *, scope: Scope
) -> list[Floats]:
    """The advantages [T] of every sequence, as :func:`batch_normalized` within the ``scope``; masked tokens get 0.

    ``batch`` compares all trained tokens, as PPO's implementations do (Andrychowicz et al., 2020, arXiv:2006.05990);
    ``group`` compares those of the sequences that share a group; ``none`` leaves every advantage as it is.

    Raises:
        LossInputError: an advantage is not a finite number.
    """
    if scope == "none":
        return [np.where(mask > 0, a, 0).astype(np.float32) for a, mask in zip(advantages, loss_masks, strict=True)]
    compared_in = groups if scope == "group" else [""] * len(loss_masks)
    found: dict[int, Doubles] = {}
    for name in dict.fromkeys(compared_in):
        members = [at for at, other in enumerate(compared_in) if other == name]
        values = batch_normalized([advantages[at] for at in members], [loss_masks[at] for at in members])
        found.update(zip(members, values, strict=True))
    return [found[at].astype(np.float32) for at in range(len(loss_masks))]
