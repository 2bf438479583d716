"""Where the reward of a sequence stands, and what its length costs.

Axes: T tokens of one sequence.
"""

import numpy as np

from fettle.advantages.finite import Numbers, finite, one_a_token
from fettle.errors import LossInputError
from fettle.types import Floats


def overlong_penalty(length: int, *, max_tokens: int, buffer: float) -> float:
    """Soft overlong punishment, eq. 13 of Yu et al., 2025 (arXiv:2503.14476), to be added to the reward::

        0                                 |y| ≤ L_max - L_cache
        ((L_max - L_cache) - |y|) / L_cache     up to L_max
        -1                                beyond

    L_max is ``max_tokens``, and ``buffer`` is L_cache as a share of it.
    """
    cache = buffer * max_tokens
    return float(np.clip((max_tokens - cache - length) / cache, -1.0, 0.0))


def token_rewards(reward: float, loss_mask: Floats) -> Floats:
    """The reward of a whole sequence as rewards [T]: all of it on the last trained token (Ouyang et al., 2022,
    arXiv:2203.02155).

    Copied to every token it would count once for each, and so pay for length.

    Raises:
        LossInputError: the reward is not a finite number, or no token is trained on.
    """
    finite("reward", [reward])
    trained = np.flatnonzero(loss_mask)
    if not trained.size:
        raise LossInputError(f"a reward of {reward} has no trained token to stand on: leave the empty response out")
    rewards = np.zeros(len(loss_mask), np.float32)
    rewards[trained[-1]] = reward
    return rewards


def repeated_constant(rewards: Numbers, loss_mask: Floats) -> bool:
    """Whether rewards [T] look like the one reward of a sequence copied to each of its trained tokens.

    A single trained token, or rewards of 0, are no copy of anything.
    """
    earned = one_a_token("reward", rewards, loss_mask)[loss_mask > 0]
    return earned.size > 1 and bool(earned[0] != 0) and bool((earned == earned[0]).all())
