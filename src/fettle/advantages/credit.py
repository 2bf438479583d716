"""Credit without a critic: the rewards of a batch in, one advantage a token out.

Axes: T tokens of one sequence.
"""

from collections.abc import Sequence

import numpy as np

from fettle.advantages.finite import Doubles, Numbers, finite
from fettle.advantages.group import ADVANTAGES
from fettle.advantages.normalization import normalized
from fettle.config import Advantage
from fettle.errors import ConfigError
from fettle.types import Floats


def return_to_go(rewards: Numbers) -> Doubles:
    """``R_t = Σ_{i≥t} r_i`` over one sequence [T], undiscounted."""
    return np.cumsum(np.asarray(rewards, dtype=np.float64)[::-1])[::-1]


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
    what is still to come, as in REINFORCE++: ``A_t = R - β Σ_{i≥t} KL_i``. ``none`` gives rewards no credit, and leaves
    the penalties alone: ``A_t = -β Σ_{i≥t} KL_i``.

    Raises:
        ConfigError: the advantage is measured against a critic, and not here.
        LossInputError: a reward or a penalty is not a finite number.
    """
    if advantage == "gae":
        raise ConfigError("advantage gae is measured against a critic's values: token_gae makes it from them")
    finite("reward", rewards)
    costs = [np.zeros(len(mask)) for mask in loss_masks]
    if penalties is not None:
        costs = [np.where(mask > 0, finite("penalty", c), 0) for mask, c in zip(loss_masks, penalties, strict=True)]
    if advantage == "none":
        return normalized([-return_to_go(cost) for cost in costs], loss_masks, groups, scope="none")
    if advantage == "batch_normalized":
        returns = [reward - return_to_go(cost) for reward, cost in zip(rewards, costs, strict=True)]
        return normalized(returns, loss_masks, groups, scope="batch")
    earned = np.array([reward - cost.sum() for reward, cost in zip(rewards, costs, strict=True)])
    names = np.array(groups)
    by_sequence = np.zeros(len(earned))
    for name in dict.fromkeys(groups):
        by_sequence[names == name] = ADVANTAGES[advantage](earned[names == name])
    return [np.where(mask > 0, a, 0).astype(np.float32) for mask, a in zip(loss_masks, by_sequence, strict=True)]
