"""Reward modelling: scores that explain which of two replies people chose, and how far to trust them."""

from typing import Literal

import numpy as np
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from fettle.types import Floats


def reward_modeling(
    *,
    chosen_scores: Float[Tensor, " N"],
    rejected_scores: Float[Tensor, " N"],
    pair_margin: Float[Tensor, " N"],
    temperature: float = 1.0,
    margin: float = 0.0,
    margin_place: Literal["reward", "logit"] = "reward",
    centering: float = 0.0,
) -> tuple[Float[Tensor, " N"], dict[str, Tensor]]:
    """Bradley-Terry (1952), as in eq. 1 of Ouyang et al., 2022 (arXiv:2203.02155); N pairs::

        L = -log σ((s_w - s_l - m) / T) + c (s_w + s_l)²      margin in the reward's units
        L = -log σ((s_w - s_l) / T - m) + c (s_w + s_l)²      margin in the logit's

    s_w and s_l are the scores of the chosen and the rejected, T the temperature, c ``centering``, m ``margin`` plus
    ``pair_margin``, which the data may ask of a pair (Touvron et al., 2023, arXiv:2307.09288, eq. 2).

    ``*_reward_squared`` are second moments: with the means they make the standard deviations ``*_reward_std``.
    ``preference_accuracy`` is 1 where the chosen scores higher: a tie counts as wrong.
    """
    difference, asked = chosen_scores - rejected_scores, margin + pair_margin
    logit = (difference - asked) / temperature if margin_place == "reward" else difference / temperature - asked
    loss = -logsigmoid(logit) + centering * (chosen_scores + rejected_scores).square()
    chosen, rejected = chosen_scores.detach(), rejected_scores.detach()
    return loss, {
        "preference_accuracy": (chosen > rejected).to(chosen.dtype),
        "reward_margin": chosen - rejected,
        "chosen_reward_mean": chosen,
        "rejected_reward_mean": rejected,
        "chosen_reward_squared": chosen.square(),
        "rejected_reward_squared": rejected.square(),
    }


def calibration_error(probabilities: Floats, outcomes: Floats, *, bins: int = 10) -> float:
    """Expected calibration error, ``Σ_b n_b/n |mean outcome - mean probability|`` over bins of equal width.

    Guo et al., 2017 (arXiv:1706.04599). ``outcomes`` are 1 where what had that probability came true. Of pairs, give
    the probability of the reply that the scores prefer, and whether it was the chosen: the probability of the chosen
    itself always comes true, and says nothing.
    """
    which = np.minimum((probabilities * bins).astype(int), bins - 1)
    gaps = np.bincount(which, weights=outcomes - probabilities, minlength=bins)
    return float(np.abs(gaps).sum() / len(probabilities))
