"""Losses: pure functions to one value a token, sequence or pair, and the weights that sum them."""

from fettle.losses.evaluation import (
    check_inputs,
    evaluate,
    finished,
    masks,
    model_outputs,
    pairs,
    required_inputs,
    required_scalars,
    unit_of,
)
from fettle.losses.kl import KL_ESTIMATORS, reward_penalty
from fettle.losses.reduce import REDUCTIONS, weights
from fettle.losses.reward_model import calibration_error
from fettle.losses.table import LOSSES, Loss, LossRow

__all__ = [
    "KL_ESTIMATORS",
    "LOSSES",
    "REDUCTIONS",
    "Loss",
    "LossRow",
    "calibration_error",
    "check_inputs",
    "evaluate",
    "finished",
    "masks",
    "model_outputs",
    "pairs",
    "required_inputs",
    "required_scalars",
    "reward_penalty",
    "unit_of",
    "weights",
]
