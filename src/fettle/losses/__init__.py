"""Losses: pure functions from log-probabilities to one value a token, and the weights that sum them."""

from fettle.losses.kl import KL_ESTIMATORS, reward_penalty
from fettle.losses.reduce import REDUCTIONS, weights
from fettle.losses.table import LOSSES, Loss, LossRow, check_inputs, evaluate, required_inputs

__all__ = [
    "KL_ESTIMATORS",
    "LOSSES",
    "REDUCTIONS",
    "Loss",
    "LossRow",
    "check_inputs",
    "evaluate",
    "required_inputs",
    "reward_penalty",
    "weights",
]
