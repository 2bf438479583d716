"""Credit with a critic: generalised advantage estimation, what the critic learns from it, and how well it does.

Schulman et al., 2015 (arXiv:1506.02438). Axes: T steps, or tokens, in order of time.
"""

from collections.abc import Sequence

import numpy as np

from fettle.advantages.finite import Doubles, Numbers, finite, one_a_token, one_each
from fettle.advantages.group import zero_variance
from fettle.errors import LossInputError
from fettle.types import Floats

Flags = Sequence[bool] | Sequence[int]


def gae(
    rewards: Numbers,
    values: Numbers,
    *,
    next_values: Numbers,
    terminated: Flags | None = None,
    truncated: Flags | None = None,
    gamma: float = 1.0,
    lam: float = 0.95,
) -> tuple[Doubles, Doubles]:
    """Advantages [T] and returns [T] of steps in a row, in which one episode may follow upon another::

        δ_t = r_t + γ (1 - terminated_t) V(s_{t+1}) - V(s_t)
        A_t = δ_t + γ λ (1 - done_t) A_{t+1} = Σ_{l≥0} (γλ)^l δ_{t+l} within the episode
        R_t = A_t + V(s_t)

    ``values[t]`` is the worth of what a step starts from and ``next_values[t]`` of where it leads. A step is done
    when it is terminated or truncated: nothing comes after what is terminated, while what is truncated would have
    gone on, and so counts its next value. The last step needs no flag. Returns are of raw advantages: normalise
    afterwards.

    Raises:
        LossInputError: a number is not finite, or the arrays are not of one length.
    """
    r = finite("reward", rewards)
    V = one_each("value", values, beside=rewards, of="reward")
    V_next = one_each("next value", next_values, beside=rewards, of="reward")
    over = _flags("terminated flag", terminated, rewards)
    done = np.maximum(over, _flags("truncated flag", truncated, rewards))
    delta = r + gamma * (1 - over) * V_next - V
    carried = gamma * lam * (1 - done)
    advantages = np.zeros_like(delta)
    following = 0.0
    for t in reversed(range(delta.size)):
        following = delta[t] + carried[t] * following
        advantages[t] = following
    return advantages, advantages + V


def token_gae(
    rewards: Numbers, values: Numbers, loss_mask: Floats, *, bootstrap: float, gamma: float = 1.0, lam: float = 0.95
) -> tuple[Floats, Floats]:
    """:func:`gae` over the trained tokens of one episode: ``advantages`` [T] and ``returns`` [T], 0 where masked.

    ``values[t]`` is the worth of what stands before ``tokens[t]``. What the environment says between two turns is
    no step: after the last token of a turn comes the first token of the next. ``bootstrap`` is the worth of what
    the episode ends in: 0 where it terminated, the critic's value where it was truncated.

    Discounting is meant for steps of an environment: γ = 0.99 leaves 4e-5 of the reward of a thousand tokens.

    Raises:
        LossInputError: a number is not finite, the arrays are not of one length, or a masked token has a reward.
    """
    r, V = one_a_token("reward", rewards, loss_mask), one_a_token("value", values, loss_mask)
    steps = np.flatnonzero(loss_mask)
    misplaced = np.flatnonzero((r != 0) & (loss_mask == 0))
    if misplaced.size:
        at = int(misplaced[0])
        raise LossInputError(f"reward {at} is {r[at]} at a token that is not trained on: put it on one that is")
    found, targets = np.zeros(len(loss_mask), np.float32), np.zeros(len(loss_mask), np.float32)
    if steps.size:
        next_values = [*V[steps][1:], bootstrap]
        found[steps], targets[steps] = gae(r[steps], V[steps], next_values=next_values, gamma=gamma, lam=lam)
    return found, targets


def explained_variance(
    values: Sequence[Floats], returns: Sequence[Floats], loss_masks: Sequence[Floats]
) -> float | None:
    """``1 - Var(R - V) / Var(R)`` over trained tokens: 1 is a perfect critic, 0 one that knows the mean at best.

    It may be anything below: a critic that is worse than a constant is not cut at -1. None where the returns are all
    equal, so that there is nothing to explain.

    Raises:
        LossInputError: a number is not finite, or the arrays are not of one length.
    """
    V = _trained("value", values, loss_masks)
    R = _trained("return", returns, loss_masks)
    return None if zero_variance(R) else float(1 - (R - V).var() / R.var())


def _trained(noun: str, given: Sequence[Floats], loss_masks: Sequence[Floats]) -> Doubles:
    """Those of the trained tokens of all sequences, in a row."""
    found = (one_a_token(noun, values, mask)[mask > 0] for values, mask in zip(given, loss_masks, strict=True))
    return np.concatenate([np.zeros(0), *found])


def _flags(noun: str, given: Flags | None, rewards: Numbers) -> Doubles:
    return one_each(noun, np.zeros(len(rewards)) if given is None else given, beside=rewards, of="reward")
