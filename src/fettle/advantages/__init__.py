"""Credit: the rewards of a batch in, one advantage a token out; and the coefficients that hold a policy back."""

from fettle.advantages.control import adapted, dual_ascent, proportional, quadratic_penalty, quadratic_slope
from fettle.advantages.correction import mismatch, mismatch_weights
from fettle.advantages.credit import credit, return_to_go
from fettle.advantages.gae import explained_variance, gae, token_gae
from fettle.advantages.group import ADVANTAGES, group_centered, group_normalized, leave_one_out, zero_variance
from fettle.advantages.normalization import Scope, batch_normalized, normalized
from fettle.advantages.planning import planning_credit, planning_mask
from fettle.advantages.shaping import overlong_penalty, repeated_constant, token_rewards

__all__ = [
    "ADVANTAGES",
    "Scope",
    "adapted",
    "batch_normalized",
    "credit",
    "dual_ascent",
    "explained_variance",
    "gae",
    "group_centered",
    "group_normalized",
    "leave_one_out",
    "mismatch",
    "mismatch_weights",
    "normalized",
    "overlong_penalty",
    "planning_credit",
    "planning_mask",
    "proportional",
    "quadratic_penalty",
    "quadratic_slope",
    "repeated_constant",
    "return_to_go",
    "token_gae",
    "token_rewards",
    "zero_variance",
]
